# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tral_monai.data.cohort import Cohort, CohortRow, read_cohort
from tral_monai.errors import CohortError, PatientOverlapError

HEADER = "slide,annotations,patient,split,mpp,part"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "s").mkdir()
    for name in ("a.tif", "b.tif", "c.tif", "a.geojson", "b.geojson", "s/a.tif", "x;y.tif"):
        (tmp_path / name).write_text("")
    return tmp_path


def cohort(folder, *rows, header=HEADER, **options) -> Cohort:
    (folder / "cohort.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return read_cohort(folder / "cohort.csv", **options)


def test_rows_are_read_with_paths_from_the_files_folder(folder):
    rows = cohort(
        folder, "a.tif,a.geojson,P1,train,0.25,", f"{folder}/b.tif, b.geojson ,P2,val,,left", "c.tif,,P1,pool,,"
    )
    assert rows.rows == (
        CohortRow(folder / "a.tif", folder / "a.geojson", "P1", "train", 0.25, None, line=2),
        CohortRow(folder / "b.tif", folder / "b.geojson", "P2", "val", None, "left", line=3),
        CohortRow(folder / "c.tif", None, "P1", "pool", None, None, line=4),
    )
    assert [row.line for row in rows.split("val")] == [3]


@pytest.mark.parametrize("order", ["split,patient,annotations,slide", "Slide, Annotations ,PATIENT,split,hospital"])
def test_columns_stand_in_any_order_and_others_are_ignored(folder, order):
    cells = {"slide": "a.tif", "annotations": "a.geojson", "patient": "P1", "split": "test", "hospital": "Oslo"}
    row = ",".join(cells[name.strip().lower()] for name in order.split(","))
    assert cohort(folder, row, header=order).rows[0].slide == folder / "a.tif"


def test_files_from_a_spreadsheet_are_read(folder):
    text = f'\ufeff{HEADER}\r\na.tif,a.geojson,P1,train,0.25,\r\n,,,,,\r\n\r\n"x;y.tif",b.geojson,"P, 2",val,,\r\n'
    (folder / "cohort.csv").write_bytes(text.encode("utf-8"))
    rows = read_cohort(folder / "cohort.csv").rows
    assert [(row.slide.name, row.patient, row.line) for row in rows] == [("a.tif", "P1", 2), ("x;y.tif", "P, 2", 5)]


def test_trailing_cells_may_be_missing(folder):
    assert cohort(folder, "a.tif,a.geojson,P1,train").rows[0].mpp is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",a.geojson,P1,train,,", "line 3: the cell 'slide' is empty"),
        ("b.tif,b.geojson,,train,,", "line 3: the cell 'patient' is empty"),
        ("b.tif,b.geojson,P1,,,", "line 3: the cell 'split' is empty"),
        ("b.tif,b.geojson,P1,training,,", "line 3: unknown split 'training', expected train, val, test, pool"),
        ("b.tif,b.geojson,P1,Train,,", "unknown split 'Train', expected .*; write 'train'"),
        ("b.tif,,P1,train,,", "line 3: the cell 'annotations' is empty, which only the split pool allows"),
        ("b.tif,,P1,pool,,left", "line 3: there is a part 'left' but there are no annotations"),
        ("b.tif,b.geojson,P1,train,40x,", "mpp must be micrometres per pixel, such as 0.25 .* but is '40x'"),
        ("b.tif,b.geojson,P1,train,0,", "mpp must be .* but is '0'"),
        ("b.tif,b.geojson,P1,train,nan,", "mpp must be .* but is 'nan'"),
        ("d.tif,b.geojson,P1,train,,", r"line 3: slide 'd.tif' does not exist \(.*d\.tif\)"),
        ("b.tif,d.geojson,P1,train,,", "line 3: annotations 'd.geojson' does not exist"),
        ("a.tif,a.geojson,P1,train,0.25,", "lines 2 and 3: slide 'a.tif' stands twice without a part"),
        (
            "a.tif,b.geojson,P1,train,0.25,left",
            "line 2: slide 'a.tif' stands in several rows, so each needs its own part",
        ),
        ("a.tif,b.geojson,P2,train,0.25,left", "lines 2 and 3: slide 'a.tif' has two patients, 'P1' and 'P2'"),
        ("a.tif,b.geojson,P1,train,0.5,left", "lines 2 and 3: slide 'a.tif' has two mpp, 0.25 and 0.5"),
        ("s/a.tif,b.geojson,P1,train,0.5,", "lines 2 and 3: two slides have the name 'a.tif'"),
    ],
)
def test_wrong_rows_are_named_with_their_line(folder, row, message):
    with pytest.raises(CohortError, match=rf"(?s)cohort\.csv has .*{message}"):
        cohort(folder, "a.tif,a.geojson,P1,train,0.25,", row)


def test_all_problems_are_listed_up_to_twenty(folder):
    with pytest.raises(CohortError, match=r"has 2 problems; correct them and run again:\n  line 2: .*\n  line 3: "):
        cohort(folder, "a.tif,a.geojson,P1,x,,", "b.tif,b.geojson,P2,y,,")
    with pytest.raises(CohortError, match=r"(?s)has 30 problems.*line 21: .*\n  and 10 more$"):
        cohort(folder, *["a.tif,a.geojson,P1,x,,"] * 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; expected the columns slide, annotations, patient, split"),
        (b"\n\n", "the file is empty"),
        (b"slide,annotations,patient,split\n", "no rows below the header slide, annotations, patient, split"),
        (b"slide,patient\na,b\n", r"missing columns annotations, split; .* found \['slide', 'patient'\]"),
        (b"slide;annotations;patient;split\n", "separated by semicolons; save it with commas"),
        (b"slide\tannotations\tpatient\tsplit\n", "separated by tabs; save it with commas"),
        (b"slide,slide,annotations,patient,split\n", "the column slide stands more than once"),
        (b"slide,annotations,patient,split\na.tif,a.geojson,P1,train,left,right\n", "line 2: 6 cells for 4 columns"),
        (b'slide,annotations,patient,split\n"a.tif,a.geojson,P1,train\n', "line 2: not valid CSV"),
        ("slide,annotations,patient,split\nß,,P,pool\n".encode("latin-1"), "expected UTF-8 text; save it as"),
    ],
)
def test_files_that_are_no_cohort_are_refused(folder, content, message):
    (folder / "cohort.csv").write_bytes(content)
    with pytest.raises(CohortError, match=message):
        read_cohort(folder / "cohort.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CohortError, match=r"cohort .*nowhere\.csv: cannot be read \(No such file"):
        read_cohort(tmp_path / "nowhere.csv")


def test_a_patient_on_two_sides_is_refused_unless_allowed(folder):
    rows = ("a.tif,a.geojson,P1,train,,", "b.tif,b.geojson,P1,test,,", "c.tif,b.geojson,P2,val,,")
    with pytest.raises(
        PatientOverlapError, match=r"patient 'P1' is on the sides train \(line 2\), test \(line 3\)"
    ) as raised:
        cohort(folder, *rows)
    assert "P2" not in str(raised.value)
    assert len(cohort(folder, *rows, allow_patient_overlap=True).rows) == 3


def test_train_and_pool_are_one_side(folder):
    assert len(cohort(folder, "a.tif,a.geojson,P1,train,,", "b.tif,,P1,pool,,").rows) == 2


def test_one_slide_on_several_splits_needs_parts_and_permission(folder):
    rows = ("a.tif,a.geojson,P1,train,,left", "a.tif,a.geojson,P1,val,,right")
    with pytest.raises(PatientOverlapError, match="P1"):
        cohort(folder, *rows)
    by_slide = cohort(folder, *rows, allow_patient_overlap=True).by_slide()
    assert [row.part for row in by_slide[folder / "a.tif"]] == ["left", "right"]
    with pytest.raises(CohortError, match="lines 2 and 3: slide 'a.tif' stands twice with the part 'left'"):
        cohort(folder, rows[0], rows[0].replace("train", "val"), allow_patient_overlap=True)


def test_a_link_keeps_its_own_name(folder):
    (folder / "link.tif").symlink_to(folder / "a.tif")
    assert cohort(folder, "link.tif,a.geojson,P1,train,,").rows[0].slide.name == "link.tif"
