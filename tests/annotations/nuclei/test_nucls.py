# SPDX-License-Identifier: Apache-2.0
import csv
import time
from collections import Counter

import pytest
from PIL import Image

from tral_monai.annotations.nuclei.nucls import read_nucls
from tral_monai.errors import AnnotationError, ConfigError

NAME = "TCGA-A1-A0SP-DX1_id-5ea4095addda5f8398977ebc_left-10_top-20_bottom-70_right-90"
SLIDE = "TCGA-A1-A0SP-DX1"
COLUMNS = ",raw_classification,main_classification,super_classification,type,xmin,ymin,xmax,ymax,coords_x,coords_y"
FOV = (10, 8, 90, 68)


def row(index, raw, kind, *box):
    contour = '"1,2,3","4,5,6"' if kind == "polyline" else ","
    return f"{index},{raw},main,super,{kind},{','.join(map(str, box))},{contour}"


def published(folder, rows, *, name=NAME, columns=COLUMNS, locations="ALL_FOV_LOCATIONS.csv", size=(100, 80), fov=FOV):
    for part in ("rgb", "csv"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(folder / "rgb" / f"{name}.png")
    (folder / "csv" / f"{name}.csv").write_text("\n".join([columns, *rows]) + "\n")
    if locations and fov:
        head = ",fovname,xmin,ymin,xmax,ymax" if locations.isupper() else ",Fovname,XMIN,YMIN,XMAX,YMAX"
        (folder / "csv" / locations).write_text(f"{head}\n0,{name},{','.join(map(str, fov))}\n")
    return folder


@pytest.mark.parametrize("locations", ["ALL_FOV_LOCATIONS.csv", "all_fov_locations.CSV"])
def test_the_published_layout(tmp_path, locations):
    rows = [
        row(0, "tumor", "polyline", 20, 18, 40, 38),
        row(1, "correction_plasma_cell", "rectangle", 50, 28, 60, 48),
        row(2, "unlabeled", "rectangle", 60, 28, 70, 38),
        row(3, "apoptotic_body", "rectangle", 60, 38, 70, 48),
        row(4, "lymphocyte", "point", 30, 30, 30, 30),
        row(5, "fibroblast", "rectangle", 6, 28, 16, 38),   # 60 % inside the field of view
        row(6, "macrophage", "rectangle", 4, 48, 14, 58),   # 40 % inside
        row(7, "neutrophil", "rectangle", 92, 20, 99, 30),  # in the picture's margin
    ]  # fmt: skip
    (field,) = read_nucls(published(tmp_path, rows, locations=locations))
    assert field.name == NAME
    assert field.image == tmp_path / "rgb" / f"{NAME}.png"
    assert (field.left_px, field.top_px, field.width_px, field.height_px, field.mpp) == (10, 8, 80, 60, 0.2)
    assert (field.slide, field.patient, field.hospital) == (SLIDE, "TCGA-A1-A0SP", "A1")
    assert field.classes == ("Tum", "Pla", "ignored", "ignored", "Str", "Mac")
    assert field.ignored.tolist() == [False, False, True, True, False, True]
    assert field.boxes_px.tolist() == [
        [10, 10, 30, 30], [40, 20, 50, 40], [50, 20, 60, 30], [50, 30, 60, 40], [0, 20, 6, 30], [0, 40, 4, 50],
    ]  # fmt: skip
    assert field.problems == (
        f"{NAME}: nuclei marked with a point only, without a box, left out: 1",
        f"{NAME}: 1 box outside the annotated area left out",
    )


def test_the_whole_picture_may_be_kept(tmp_path):
    rows = [row(0, "macrophage", "rectangle", 4, 48, 14, 58), row(1, "tumor", "rectangle", 92, 70, 105, 90)]
    (field,) = read_nucls(published(tmp_path, rows), area="image")
    assert (field.left_px, field.top_px, field.width_px, field.height_px) == (0, 0, 100, 80)
    assert field.boxes_px.tolist() == [[4, 48, 14, 58], [92, 70, 100, 80]]
    assert field.ignored.tolist() == [False, False]
    assert field.problems == (f"{NAME}: 1 box partly outside the annotated area clipped",)


@pytest.mark.parametrize(
    ("level", "names"),
    [
        ("raw", ("mitotic_figure", "vascular_endothelium")),
        ("main", ("tumor_mitotic", "nonTILnonMQ_stromal")),
        ("super", ("tumor_any", "nonTIL_stromal")),
    ],
)
def test_class_levels(tmp_path, level, names):
    rows = [
        row(0, "correction_mitotic_figure", "rectangle", 20, 18, 40, 38),
        row(1, "vascular_endothelium", "rectangle", 50, 28, 60, 48),
    ]
    (field,) = read_nucls(published(tmp_path, rows), class_level=level)
    assert field.classes == names


def test_older_tables_with_group_and_the_field_as_a_row(tmp_path):
    rows = ["0,fov_basic,rectangle,10,8,90,68", "1,tumor,rectangle,20,18,40,38"]
    (field,) = read_nucls(published(tmp_path, rows, columns=",Group,Type,Xmin,Ymin,Xmax,Ymax", fov=None))
    assert (field.left_px, field.top_px, field.width_px, field.height_px) == (10, 8, 80, 60)
    assert field.classes == ("Tum",)


def test_a_field_without_nuclei_or_extent_is_the_whole_picture(tmp_path):
    (field,) = read_nucls(published(tmp_path, [], fov=None))
    assert (len(field), field.width_px, field.height_px, field.problems) == (0, 100, 80, ())


def test_a_class_of_no_map_is_ignored_and_named(tmp_path):
    rows = [row(i, "hepatocyte", "rectangle", 20, 18, 40, 38) for i in range(2)]
    (field,) = read_nucls(published(tmp_path, rows))
    assert (field.classes, field.ignored.tolist()) == (("ignored", "ignored"), [True, True])
    assert f"{NAME}: class 'hepatocyte' (2 nuclei) is not one of tumor, lymphocyte, " in field.problems[0]


def test_what_cannot_be_read_is_named(tmp_path):
    published(tmp_path, [row(0, "tumor", "rectangle", 20, 18, 40, 38)])
    other = NAME.replace("A0SP", "A0XX")
    for number, (rows, columns, message) in enumerate(
        [
            ([], "raw_classification,xmin", "lacks the columns \\['ymin', 'xmax', 'ymax'\\]"),
            (["0,tumor,m,s,rectangle,1,2"], COLUMNS, "line 2: expected 11 cells, but found 7; the file may have been"),
            (
                [row(0, "tumor", "rectangle", 1, "two", 3, 4)],
                COLUMNS,
                "as numbers, but found \\['1', 'two', '3', '4'\\]",
            ),
            ([row(0, "tumor", "rectangle", 1, "x" * 140_000, 3, 4)], COLUMNS, "not a CSV table that can be read"),
        ]
    ):
        folder = published(tmp_path / str(number), rows, name=other, columns=columns, fov=None)
        with pytest.raises(AnnotationError, match=f"{other}.csv.*{message}"):
            read_nucls(folder)
    problems: list[str] = []
    (tmp_path / "csv" / f"{other}.csv").write_text(COLUMNS + "\n")
    Image.new("RGB", (9, 9)).save(tmp_path / "rgb" / "lonely.png")
    assert [field.name for field in read_nucls(tmp_path, problems=problems)] == [NAME]
    assert f"{other}.csv: there is no image '{other}.png' in rgb/" in problems[0]
    assert "lonely.png: there is no table 'lonely.csv' in csv/" in problems[1]


def test_an_extent_beyond_the_picture_is_refused(tmp_path):
    published(tmp_path, [], fov=(120, 8, 190, 68))
    with pytest.raises(AnnotationError, match=r"\(120.0, 8.0, 190.0, 68.0\) holds no pixel of the picture of 100 x 80"):
        read_nucls(tmp_path)


def tables(folder, fovs, annotations):
    folder.mkdir(exist_ok=True)
    (folder / "fovs.csv").write_text("\n".join(["fovname,slide_name,xmin,ymin,xmax,ymax", *fovs]) + "\n")
    head = "fovname,raw_classification,type,xmin,ymin,xmax,ymax"
    (folder / "annotations.csv").write_text("\n".join([head, *annotations]) + "\n")
    return folder


def test_two_tables_without_images(tmp_path):
    folder = tables(
        tmp_path,
        [f"{NAME},{SLIDE},10,8,90,68", f"empty_1,{SLIDE},0,0,50,50"],
        [f"{NAME},tumor,rectangle,20,18,40,38", f"{NAME},tumor,rectangle,80,60,100,90"],
    )
    field, empty = read_nucls(folder)
    assert (field.image, field.left_px, field.width_px) == (None, 10, 80)
    assert field.boxes_px.tolist() == [[10, 10, 30, 30], [70, 52, 80, 60]]
    assert field.ignored.tolist() == [False, True]  # 10 x 8 of 20 x 30 is inside
    assert (len(empty), empty.slide, empty.patient) == (0, "empty", None)
    field, _ = read_nucls(folder, area="image")
    assert (field.left_px, field.top_px, field.width_px, field.height_px) == (0, 0, 100, 90)
    assert field.ignored.tolist() == [False, False]


def test_csv_files_alone_are_tables_too(tmp_path):
    published(tmp_path, [row(0, "tumor", "rectangle", 20, 18, 40, 38)])
    (tmp_path / "rgb" / f"{NAME}.png").unlink()
    (tmp_path / "rgb").rmdir()
    (field,) = read_nucls(tmp_path)
    assert (field.image, field.classes, field.width_px) == (None, ("Tum",), 80)
    (tmp_path / "csv" / "ALL_FOV_LOCATIONS.csv").unlink()
    with pytest.raises(AnnotationError, match="neither a picture nor an extent of the field is there"):
        read_nucls(tmp_path)


def test_tables_that_contradict_each_other(tmp_path):
    extent = f"{NAME},{SLIDE},10,8,90,68"
    with pytest.raises(AnnotationError, match=rf"fovs\.csv: the field '{NAME}' has two rows; remove one"):
        read_nucls(tables(tmp_path, [extent, extent], []))
    stray = "other,tumor,rectangle,20,18,40,38"
    with pytest.raises(AnnotationError, match=r"annotations\.csv: the field 'other' is not in fovs\.csv"):
        read_nucls(tables(tmp_path, [extent], [stray]))


def test_wrong_arguments(tmp_path):
    with pytest.raises(AnnotationError, match="expected NuCLS's folders csv/ and rgb/, or the tables annotations.csv"):
        read_nucls(tmp_path)
    with pytest.raises(ConfigError, match="area of NuCLS must be 'fov' or 'image', but is 'roi'"):
        read_nucls(tmp_path, area="roi")


def test_the_real_tables_hold_what_their_description_counts(tral_data):
    fields = read_nucls(tral_data / "nucls_annotations", area="image", class_level="raw")
    assert len(fields) == 1120
    assert len({field.slide for field in fields}) == 87
    assert all(field.patient and field.hospital for field in fields)
    counts = Counter(name for field in fields for name in field.classes)
    points = sum(int(p.rsplit(" ", 1)[1]) for f in fields for p in f.problems if "marked with a point only" in p)
    assert counts.total() + points == 37_991
    # Uncorrected counts of the description plus corrections that are boxes (corrected points are left out).
    with (tral_data / "nucls_annotations/annotations.csv").open() as stream:
        raw = Counter(
            line["raw_classification"].removeprefix("correction_")
            for line in csv.DictReader(stream)
            if line["type"] != "point"
        )
    ignored = raw.pop("unlabeled") + raw.pop("apoptotic_body")
    assert counts == {**raw, "ignored": ignored}
    assert counts["macrophage"] == 931 + 5 - 3
    assert counts["vascular_endothelium"] == 336


def test_1744_files_are_read_in_seconds(tmp_path):
    rows = [row(i, "tumor", "polyline", 20 + i, 18, 40 + i, 38) for i in range(34)]
    published(tmp_path, rows)
    text = (tmp_path / "csv" / f"{NAME}.csv").read_text()
    picture = (tmp_path / "rgb" / f"{NAME}.png").read_bytes()
    for number in range(1743):
        (tmp_path / "csv" / f"{NAME}{number}.csv").write_text(text)
        (tmp_path / "rgb" / f"{NAME}{number}.png").write_bytes(picture)
    started = time.process_time()
    fields = read_nucls(tmp_path)
    assert sum(map(len, fields)) == 34 * 1744
    assert time.process_time() - started < 10
