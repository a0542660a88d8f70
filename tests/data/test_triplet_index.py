# SPDX-License-Identifier: Apache-2.0
import collections
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from tral_monai.annotations import Annotation, ClassMap, write_asap_xml, write_geojson
from tral_monai.data import IndexReport, identity_class_map, read_cohort
from tral_monai.data.cohort import Cohort, CohortRow
from tral_monai.data.triplet_index import COLUMNS, build_triplet_index, read_index, write_index
from tral_monai.errors import CohortError, ConfigError, UnknownClassError

CLASSES = ClassMap.identity(["A", "B"])


def box(x0, y0, x1, y1, class_name="A", name=None):
    """In tiles of 128 px."""
    return Annotation(shapely.box(x0 * 128, y0 * 128, x1 * 128, y1 * 128), class_name, name)


BOW_TIE = Annotation(shapely.Polygon([(0, 0), (512, 512), (512, 0), (0, 512)]), "B")


class Site:
    """A folder of slides of 8 x 6 tiles with tissue everywhere but in their last column."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def row(self, name, *annotations, split="train", part=None, patient="P", mpp=0.25, size=(1024, 768)) -> CohortRow:
        slide = self.folder / f"{name}.png"
        if not slide.exists():
            image = np.full((size[1], size[0], 3), (200, 120, 170), np.uint8)
            image[:, -128:] = 255
            Image.fromarray(image).save(slide)
        path = self.folder / f"{name}.geojson"
        if annotations:
            write_geojson(path, annotations)
        return CohortRow(slide, path if path.exists() else None, patient, split, mpp, part)


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


def places(table):
    rows = zip(table["x_level0"], table["y_level0"], table["class"], strict=True)
    return {((x - 64) // 128, (y - 64) // 128): name for x, y, name in rows}


def test_the_table_by_hand(site):
    row = site.row("s", box(1, 2, 3, 3), box(0, 0, 1, 0.75, "B"), split="val", patient="P7")
    table = build_triplet_index(Cohort((row,)), CLASSES)
    expected = pd.DataFrame(
        {
            "id": [0, 1, 2],
            "slide": ["s.png"] * 3,
            "slide_path": [str(row.slide)] * 3,
            "slide_mpp": [0.25] * 3,
            "x_level0": [64, 192, 320],
            "y_level0": [64, 320, 320],
            "class": ["B", "A", "A"],
            "coverage": [0.75, 1.0, 1.0],
            "split": ["val"] * 3,
            "patient": ["P7"] * 3,
        }
    ).astype(COLUMNS)
    pd.testing.assert_frame_equal(table, expected)
    report = IndexReport.of(table)
    assert (report.slides, report.triplets, report.skipped, report.lines()) == (1, 3, {}, [])
    # 2 tiles of (128 px * 0.25 um)^2 are 0.002048 mm2.
    assert report.area_mm2["val"] == pytest.approx({"A": 2 * 0.032**2, "B": 0.75 * 0.032**2})


def test_glass_does_not_count_unless_asked(site):
    row = site.row("s", box(6, 0, 8, 1))
    assert places(build_triplet_index(Cohort((row,)), CLASSES)) == {(6, 0): "A"}
    assert places(build_triplet_index(Cohort((row,)), CLASSES, tissue_method="paper")) == {(6, 0): "A"}
    assert places(build_triplet_index(Cohort((row,)), CLASSES, tissue_method=None)) == {(6, 0): "A", (7, 0): "A"}


def test_a_20x_scan_has_a_grid_of_64_pixels(site):
    row = site.row("s", box(0, 0, 1, 1), mpp=0.5)
    table = build_triplet_index(Cohort((row,)), CLASSES)
    assert table[["x_level0", "y_level0"]].to_numpy().tolist() == [[32, 32], [96, 32], [32, 96], [96, 96]]
    assert set(table["slide_mpp"]) == {0.5}


def test_the_class_maps_priority_is_carved_out(site):
    row = site.row("s", box(0, 0, 3, 1), box(1, 0, 2, 1, "B"), box(2, 0, 3, 1, "Invasive"))
    rules = [{"match": name, "class": name} for name in ("A", "B", "Invasive")]
    class_map = ClassMap(["A", "B"], rules, carve_out=["Invasive", "B"])
    table = build_triplet_index(Cohort((row,)), class_map)
    assert places(table) == {(0, 0): "A", (1, 0): "B"}


def test_the_stride_moves_the_grid_but_not_the_tile(site):
    row = site.row("s", box(0, 0, 2, 1))
    table = build_triplet_index(Cohort((row,)), CLASSES, stride_px=64)
    assert table["x_level0"].tolist() == [64, 128, 192]


def test_the_cap_draws_the_same_tiles_whatever_the_other_slides_are(site):
    rows = [site.row(name, box(0, 0, 6, 6), box(6, 0, 7, 2, "B"), patient=name) for name in ("s", "t", "u")]
    one = build_triplet_index(Cohort((rows[1],)), CLASSES, cap_per_slide_and_class=5, seed=3)
    all_ = build_triplet_index(Cohort(tuple(rows[::-1])), CLASSES, cap_per_slide_and_class=5, seed=3)
    again = build_triplet_index(Cohort(tuple(rows)), CLASSES, cap_per_slide_and_class=5, seed=3)
    pd.testing.assert_frame_equal(all_, again)
    assert all_.groupby(["slide", "class"]).size().tolist() == [5, 2, 5, 2, 5, 2]
    of_t = all_[all_["slide"] == "t.png"].drop(columns="id").reset_index(drop=True)
    pd.testing.assert_frame_equal(of_t, one.drop(columns="id"))
    draws = [places(all_[all_["slide"] == f"{name}.png"]).keys() for name in "stu"]
    assert draws[0] != draws[1] != draws[2]
    other = build_triplet_index(Cohort(tuple(rows)), CLASSES, cap_per_slide_and_class=5, seed=4)
    assert places(all_) != places(other)


def test_parts_make_the_splits_of_one_slide(site):
    row = site.row("s", box(0, 0, 2, 1, name="left"), box(3, 0, 4, 1, name="right"), box(5, 0, 6, 1), part="left")
    rows = (row, CohortRow(row.slide, row.annotations, "P", "test", 0.25, "right"))
    table = build_triplet_index(Cohort(rows), CLASSES)
    assert places(table[table["split"] == "train"]) == {(0, 0): "A", (1, 0): "A"}
    assert places(table[table["split"] == "test"]) == {(3, 0): "A"}


def test_a_tile_that_two_splits_claim_is_left_out_and_counted(site):
    row = site.row("s", box(0, 0, 3, 1, name="left"), box(2, 0, 4, 1, name="right"), part="left")
    rows = (row, CohortRow(row.slide, row.annotations, "P", "test", 0.25, "right"))
    table = build_triplet_index(Cohort(rows), CLASSES)
    assert set(places(table)) == {(0, 0), (1, 0), (3, 0)}
    assert IndexReport.of(table).split_conflict_tiles == 1
    assert "1 tiles left out: outlines of two splits claim them" in IndexReport.of(table).lines()


def test_a_tile_of_two_parts_of_one_split_stands_once(site):
    row = site.row("s", box(0, 0, 1, 0.75, name="left"), box(0, 0, 1, 1, "B", name="right"), part="left")
    table = build_triplet_index(
        Cohort((row, CohortRow(row.slide, row.annotations, "P", "train", 0.25, "right"))), CLASSES
    )
    assert places(table) == {(0, 0): "B"}


def test_a_part_that_no_annotation_has_is_noted(site):
    row = site.row("s", box(0, 0, 1, 1, name="left"), part="left")
    wrong = site.row("t", box(0, 0, 1, 1, name="Left"), part="left")
    notes = IndexReport.of(build_triplet_index(Cohort((row, wrong)), CLASSES)).notes
    assert notes == ["t.png: no annotation has the name 'left' (column part); names there: 'Left'"]


def test_outlines_beside_the_slide_are_noted(site):
    rows = (site.row("s", box(0, 0, 1, 1)), site.row("t", box(80, 80, 81, 81)))
    (note,) = IndexReport.of(build_triplet_index(Cohort(rows), CLASSES)).notes
    assert note == (
        "t.png (train): no tile is covered enough by tissue; outlines reach from (10240, 10240) to (10368, 10368) on a "
        "slide of 1024 x 768 pixels"
    )


def test_slides_without_annotations_give_all_their_tissue(site):
    table = build_triplet_index(Cohort((site.row("s", split="pool"),)), CLASSES)
    assert len(table) == 7 * 6
    assert set(table["class"]) == {""}
    assert set(table["split"]) == {"pool"}


def test_asap_annotations_give_the_same_index(site):
    row = site.row("s", box(0, 0, 2, 2), box(3, 0, 5, 2, "B"))
    write_asap_xml(site.folder / "s.xml", [box(0, 0, 2, 2), box(3, 0, 5, 2, "B")])
    other = CohortRow(row.slide, site.folder / "s.xml", "P", "train", 0.25)
    pd.testing.assert_frame_equal(
        build_triplet_index(Cohort((row,)), CLASSES), build_triplet_index(Cohort((other,)), CLASSES)
    )


def test_bad_slides_and_shapes_are_named_counted_and_skipped(site):
    good = site.row("good", box(0, 0, 1, 1), BOW_TIE)
    no_mpp = site.row("no_mpp", box(0, 0, 1, 1), mpp=None)
    cut = site.row("cut", box(0, 0, 1, 1))
    cut.slide.write_bytes(cut.slide.read_bytes()[:100])
    broken = site.row("broken", box(0, 0, 1, 1))
    broken.annotations.write_text('{"type": "FeatureCollection", "features": [')
    line = Annotation(shapely.Polygon([(0, 0), (1, 1), (2, 2)]), "A", "line")
    partly = site.row("partly", box(0, 0, 1, 1), line)
    table = build_triplet_index(Cohort((no_mpp, cut, good, broken, partly)), CLASSES)
    report = IndexReport.of(table)
    assert set(table["slide"]) == {"good.png", "partly.png"}
    assert list(report.skipped) == ["no_mpp.png", "cut.png", "broken.png"]
    assert report.skipped["no_mpp.png"].startswith("the file records no micrometres per pixel")
    assert report.skipped["broken.png"].startswith("broken.geojson, line 1, column 44: not valid JSON")
    assert report.shape_counts == {"repaired": 1, "dropped": 1}
    assert any(text.startswith("good.geojson, shape 2 (class 'B')") for text in report.shapes)
    assert any(text.startswith("partly.geojson, shape 2 (class 'A', name 'line')") for text in report.shapes)
    assert report.lines()[0].startswith("skipped no_mpp.png: ")


def test_unknown_names_of_all_slides_are_listed_at_once(site):
    rows = (site.row("s", box(0, 0, 1, 1, "a")), site.row("t", box(0, 0, 1, 1, "Bee")), site.row("u", box(0, 0, 1, 1)))
    with pytest.raises(UnknownClassError, match=r"no rule .* fits 'a', 'Bee'; names seen: 'A', 'Bee', 'a'\. Rules: A"):
        build_triplet_index(Cohort(rows), CLASSES)
    table = build_triplet_index(Cohort(rows), ClassMap(["A"], [{"match": "A", "class": "A"}], unknown="drop"))
    assert IndexReport.of(table).dropped_names == ["a", "Bee"]
    assert IndexReport.of(table).names == {"a": 1, "Bee": 1, "A": 1}


def test_nothing_left_is_an_error_that_says_why(site):
    rows = (site.row("s", box(0, 0, 0.5, 0.5)), site.row("t", box(0, 0, 1, 1), mpp=None))
    with pytest.raises(CohortError, match=r"(?s)no tile of 2 slides .* skipped t\.png: .*s\.png \(train\): no tile"):
        build_triplet_index(Cohort(rows), CLASSES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coverage": 1.0}, "coverage must be"),
        ({"stride_px": 100}, "stride_px must be a multiple of 16"),
        ({"stride_px": 0}, "stride_px must be at least 1"),
        ({"cap_per_slide_and_class": 0}, "cap_per_slide_and_class must be at least 1 or None, but is 0"),
        ({"tissue_method": "otsu"}, "tissue_method must be auto, paper or None, but is 'otsu'"),
    ],
)
def test_wrong_settings_are_refused_before_any_slide_is_read(settings, message):
    row = CohortRow(Path("nowhere.tif"), None, "P", "pool")
    with pytest.raises(ConfigError, match=message):
        build_triplet_index(Cohort((row,)), CLASSES, **settings)


def test_progress_counts_slides(site):
    calls = []
    rows = (site.row("s", box(0, 0, 1, 1)), site.row("t", box(0, 0, 1, 1)))
    build_triplet_index(Cohort(rows), CLASSES, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]


def test_the_file_holds_the_table_and_its_report(site, tmp_path):
    table = build_triplet_index(Cohort((site.row("s", box(0, 0, 2, 2), BOW_TIE),)), CLASSES)
    write_index(table, tmp_path / "index.parquet")
    back = read_index(tmp_path / "index.parquet")
    pd.testing.assert_frame_equal(back, table)
    assert IndexReport.of(back) == IndexReport.of(table)
    assert IndexReport.of(back).shape_counts == {"repaired": 1}
    assert not list(tmp_path.glob(".part-*"))


def test_other_files_are_no_index(tmp_path):
    with pytest.raises(CohortError, match=r"nowhere\.parquet: cannot be read"):
        read_index(tmp_path / "nowhere.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(CohortError, match=r"a\.parquet: cannot be read .*build it again from the cohort"):
        read_index(tmp_path / "a.parquet")
    pd.DataFrame({"id": [1], "slide": ["s"]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(CohortError, match=r"b\.parquet is no triplet index: it lacks slide_path, slide_mpp"):
        read_index(tmp_path / "b.parquet")
    with pytest.raises(CohortError, match="the table is no triplet index"):
        write_index(pd.DataFrame({"id": [1]}), tmp_path / "c.parquet")


def test_names_as_they_stand_make_a_class_map(site):
    red = Annotation(shapely.box(0, 0, 9, 9), "Tumor", "left", (200, 0, 0))
    rows = (site.row("s", red, box(0, 0, 1, 1, "Fat"), part="left"), site.row("t", box(0, 0, 1, 1, "Blood")))
    broken = site.row("u", box(0, 0, 1, 1))
    broken.annotations.write_text("{")
    class_map = identity_class_map(Cohort((*rows, broken)))
    assert class_map == ClassMap.identity(["Blood", "Tumor"], colors={"Tumor": (200, 0, 0)})
    with pytest.raises(CohortError, match="no annotation of the cohort has a class"):
        identity_class_map(Cohort((site.row("v", split="pool"),)))


def test_the_colon_polyp(tmp_path):
    if not os.environ.get("TRAL_DATA"):
        pytest.skip("a real slide with outlines: set TRAL_DATA to the data folder")
    slides = Path(os.environ["TRAL_DATA"]) / "slides"
    name = slides / "colon_polyp_lower"
    rows = [f"{name}.tif,{name}.geojson,polyp,{part},0.25,{part}" for part in ("train", "val", "test")]
    (tmp_path / "cohort.csv").write_text("\n".join(["slide,annotations,patient,split,mpp,part", *rows]))
    cohort = read_cohort(tmp_path / "cohort.csv", allow_patient_overlap=True)
    class_map = identity_class_map(cohort)
    assert class_map.classes == ("Adenoma", "Damaged", "Lymphoid", "Mucosa", "Stroma")
    # The data set's description counts tiles whose centre lies in an outline: close to a coverage of more than a half.
    half = build_triplet_index(cohort, class_map, coverage=0.5, tissue_method=None)
    counts = collections.Counter(half["class"])
    for of_class, described in {"Adenoma": 1010, "Mucosa": 490, "Stroma": 350, "Lymphoid": 140, "Damaged": 140}.items():
        assert counts[of_class] == pytest.approx(described, rel=0.06)
    table = build_triplet_index(cohort, class_map, tissue_method=None)
    assert collections.Counter(table["class"]) == {
        "Adenoma": 967, "Mucosa": 457, "Stroma": 315, "Lymphoid": 122, "Damaged": 125
    }  # fmt: skip
    assert (table["coverage"] > 0.7).all()
    report = IndexReport.of(table)
    assert (report.lines(), report.split_conflict_tiles) == ([], 0)
