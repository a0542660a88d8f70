# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely import box

from tests.inference.colour_slides import slide_pixels, write_slide
from tests.rounds.regions.colour_site import make_slides, nuclei_site, record, tissue_site
from tral_monai.annotations.class_map import ClassMap
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS
from tral_monai.data.triplet_index import COLUMNS
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.samples import nucleus_samples, tissue_samples

LEFT, RIGHT = Region("a.tif", 0, 0, 512, 256), Region("a.tif", 512, 0, 512, 256)
HELD_OUT = Region("c.tif", 0, 0, 256, 256)


@pytest.fixture
def studies(tmp_path):
    return make_slides(tmp_path / "slides")


@pytest.fixture
def tissue(studies):
    return tissue_site(studies)


@pytest.fixture
def nuclei(studies):
    return nuclei_site(studies)


def places(table):
    return sorted(zip(table["x_level0"], table["y_level0"], table["class"], strict=True))


def test_tiles_of_a_drawn_polygon_and_nothing_beside_it(tissue):
    # Three quarters of the tiles in the second column are covered, half of those in the third one.
    record(tissue, LEFT, "train", ("Stroma", box(0, 0, 224, 256)), ("Muscle", box(320, 0, 512, 128)))
    record(tissue, HELD_OUT, "val", ("Blood", box(0, 0, 128, 256)))
    table = tissue_samples(tissue)
    assert list(table.columns) == [*COLUMNS, "region"]
    of_a = table[table["slide"] == "a.tif"]
    assert places(of_a) == [
        (64, 64, "Stroma"),
        (64, 192, "Stroma"),
        (192, 64, "Stroma"),
        (192, 192, "Stroma"),
        (448, 64, "Muscle"),
    ]
    assert of_a["coverage"].tolist() == [1.0, 0.75, 1.0, 1.0, 0.75]
    assert set(of_a["split"]) == {"train"}
    assert set(of_a["region"]) == {LEFT.id}
    assert set(of_a["slide_mpp"]) == {0.25}
    assert set(of_a["slide_path"]) == {str(tissue.site.studies / "a.tif")}
    assert set(of_a["patient"]) == {"a"}
    of_c = table[table["slide"] == "c.tif"]
    assert places(of_c) == [(64, 64, "Blood"), (64, 192, "Blood")]
    assert set(of_c["split"]) == {"val"}
    assert table["id"].tolist() == list(range(7))


def test_what_is_not_drawn_may_be_a_class(studies):
    task = tissue_site(studies, tissue_negative_class="Blood")
    record(task, LEFT, "train", ("Stroma", box(0, 0, 256, 256)))
    record(task, RIGHT, "train")
    table = tissue_samples(task)
    assert places(table[table["region"] == LEFT.id]) == [
        (x, y, "Stroma" if x < 256 else "Blood") for x in (64, 192, 320, 448) for y in (64, 192)
    ]
    # A region in which nothing was drawn is all of it.
    assert places(table[table["region"] == RIGHT.id]) == [
        (x, y, "Blood") for x in (576, 704, 832, 960) for y in (64, 192)
    ]
    with pytest.raises(ConfigError, match=r"tissue_negative_class must be one of the classes .*but is 'Glass'"):
        tissue_samples(tissue_site(studies, tissue_negative_class="Glass"))


def test_an_empty_region_gives_no_tile_without_a_negative_class(tissue):
    record(tissue, LEFT, "train")
    table = tissue_samples(tissue)
    assert table.empty
    assert table.dtypes["x_level0"] == np.int64


def test_carved_out_areas_are_taken_from_the_others(tissue):
    tissue.class_map = ClassMap(["Stroma", "Muscle", "Blood"], [{"match": "hole", "class": "hole"}], carve_out=["hole"])
    record(tissue, LEFT, "train", ("Stroma", box(0, 0, 512, 256)), ("hole", box(0, 0, 384, 256)))
    assert places(tissue_samples(tissue)) == [(448, 64, "Stroma"), (448, 192, "Stroma")]


def test_only_tissue_counts(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    write_slide(folder / "w.tif", slide_pixels(), mpp=0.5)  # 1 mm across: two cells of glass around the tissue
    task = tissue_site(folder, val_fraction="0")
    corner = Region("w.tif", 0, 0, 512, 512)
    record(task, corner, "train", ("Stroma", corner.polygon))
    first = tissue_samples(task)
    # A tile is 64 px here; tissue begins at 256.
    assert places(first) == [(x, y, "Stroma") for x in range(288, 512, 64) for y in range(288, 512, 64)]
    masks = list((task.folder / "tissue").glob("*.npz"))
    assert len(masks) == 1
    stamp = masks[0].stat().st_mtime_ns
    pd.testing.assert_frame_equal(tissue_samples(task), first)
    assert masks[0].stat().st_mtime_ns == stamp  # read, not made again
    masks[0].write_bytes(b"half a mask")
    pd.testing.assert_frame_equal(tissue_samples(task), first)


def test_one_row_per_tile_and_none_where_purposes_contradict(tissue, caplog):
    overlapping = Region("a.tif", 128, 0, 512, 256)
    record(tissue, LEFT, "train", ("Stroma", box(0, 0, 480, 256)))
    record(tissue, overlapping, "train", ("Muscle", box(256, 0, 512, 256)))
    table = tissue_samples(tissue)
    assert places(table) == [
        (64, 64, "Stroma"),
        (64, 192, "Stroma"),
        (192, 64, "Stroma"),
        (192, 192, "Stroma"),
        (320, 64, "Stroma" if LEFT.id < overlapping.id else "Muscle"),
        (320, 192, "Stroma" if LEFT.id < overlapping.id else "Muscle"),
        (448, 64, "Muscle"),  # all of it against three quarters
        (448, 192, "Muscle"),
    ]
    record(tissue, Region("a.tif", 256, 0, 256, 128), "val", ("Blood", box(256, 0, 512, 128)))
    assert [(x, y) for x, y, _ in places(tissue_samples(tissue)) if x > 256] == [(320, 192), (448, 192)]
    assert "2 tiles lie in a region to train on and in a held-out one" in caplog.text


def test_a_slide_that_is_gone_is_left_out_and_comes_back(tissue, studies, caplog):
    record(tissue, LEFT, "train", ("Stroma", LEFT.polygon))
    record(tissue, HELD_OUT, "val", ("Stroma", HELD_OUT.polygon))
    (studies / "a.tif").rename(studies / "a.away")
    assert set(tissue_samples(tissue)["slide"]) == {"c.tif"}
    assert "1 answered regions of a.tif are left out: the slide 'a.tif' is no longer in the studies" in caplog.text
    (studies / "a.tif").write_bytes(b"no slide")
    assert set(tissue_samples(tissue)["slide"]) == {"c.tif"}
    (studies / "a.away").rename(studies / "a.tif")
    assert set(tissue_samples(tissue)["slide"]) == {"a.tif", "c.tif"}


def test_nobody_has_answered(tissue, nuclei):
    assert list(tissue_samples(tissue).columns) == [*COLUMNS, "region"]
    table = nucleus_samples(nuclei)
    assert table.empty
    assert list(table.columns) == [*FOV_COLUMNS, "part"]


def test_fields_of_view_with_boxes_in_their_pixels(studies):
    task = nuclei_site(studies, nuclei_overrides={"fov_mpp": 0.5})
    region = Region("a.tif", 100, 200, 64, 32)
    whole = shapely.Point(132, 216).buffer(8)
    record(
        task,
        region,
        "train",
        ("tumour", whole),
        ("lymphocyte", box(96, 204, 120, 220)),  # 20 of 24 px are inside
        ("unknown", box(154, 210, 171, 220)),
        ("ignored", box(110, 222, 126, 230)),
        ("tumour", box(98, 220, 106, 230)),  # 6 px of it are left, 3 at this resolution
    )
    record(task, Region("c.tif", 0, 0, 64, 64), "val")
    table = nucleus_samples(task).set_index("slide")
    row = table.loc["a.tif"]
    assert (row["id"], row["part"], row["patient"]) == (region.id, "train", "a")
    assert [row[name] for name in ("left_px", "top_px", "width_px", "height_px")] == [100, 200, 64, 32]
    assert (row["mpp"], row["fov_mpp"], row["image"]) == (0.25, 0.5, str(studies / "a.tif"))
    assert row["classes"] == ("tumour", "lymphocyte", "unknown", "ignored", "ignored")
    expected = [[12, 4, 20, 12], [0, 2, 10, 10], [27, 5, 32, 10], [5, 11, 13, 15], [0, 10, 3, 15]]
    np.testing.assert_allclose(row["boxes_px"], expected, atol=1e-5)
    empty = table.loc["c.tif"]
    assert empty["boxes_px"].shape == (0, 4)
    assert (empty["classes"], empty["part"]) == ((), "val")


def test_what_reaches_in_from_the_next_region_is_ignored(nuclei):
    left, right = Region("a.tif", 0, 0, 64, 64), Region("a.tif", 64, 0, 64, 64)
    record(nuclei, left, "train", ("tumour", box(40, 20, 76, 40)))
    record(nuclei, right, "train", ("lymphocyte", box(80, 10, 100, 30)))
    table = nucleus_samples(nuclei).set_index("left_px")
    assert table.loc[0, "classes"] == ("tumour",)
    assert table.loc[0, "boxes_px"].tolist() == [[40, 20, 64, 40]]
    assert table.loc[64, "classes"] == ("lymphocyte", "ignored")
    assert table.loc[64, "boxes_px"].tolist() == [[16, 10, 36, 30], [0, 20, 12, 40]]


def test_a_region_that_another_one_covers_is_learnt_once(nuclei):
    inner, outer = Region("a.tif", 64, 64, 64, 64), Region("a.tif", 40, 40, 90, 90)
    nucleus = ("tumour", box(80, 80, 100, 100))
    record(nuclei, inner, "train", nucleus)
    record(nuclei, outer, "train", nucleus)
    table = nucleus_samples(nuclei)
    assert table["id"].tolist() == [outer.id]
    assert table.loc[0, "boxes_px"].tolist() == [[40, 40, 60, 60]]


def test_a_large_region_is_cut_to_about_the_sites_size(nuclei):
    large = Region("a.tif", 100, 200, 128, 96)  # 64 px is the site's: two columns, and two rows of 48 px
    record(nuclei, large, "train", ("tumour", box(110, 210, 130, 230)), ("lymphocyte", box(200, 270, 220, 290)))
    table = nucleus_samples(nuclei)
    places = [(100, 200, 64, 48), (164, 200, 64, 48), (100, 248, 64, 48), (164, 248, 64, 48)]
    assert table["id"].tolist() == [Region("a.tif", *place).id for place in places]
    assert table["classes"].tolist() == [("tumour",), (), (), ("lymphocyte",)]
    assert table.loc[3, "boxes_px"].tolist() == [[36, 22, 56, 42]]
    assert set(table["part"]) == {"train"}


def test_fields_of_a_slide_that_is_gone_are_left_out(nuclei, studies, caplog):
    record(nuclei, Region("a.tif", 0, 0, 64, 64), "train", ("tumour", box(8, 8, 24, 24)))
    record(nuclei, Region("b.tif", 0, 0, 64, 64), "train", ("tumour", box(8, 8, 24, 24)))
    (studies / "b.tif").unlink()
    assert nucleus_samples(nuclei)["slide"].tolist() == ["a.tif"]
    assert "1 answered regions of b.tif are left out" in caplog.text


def test_a_resolution_that_is_none(studies):
    with pytest.raises(ConfigError, match="fov_mpp must be micrometres per pixel above 0, such as 0.25, but is 0"):
        nucleus_samples(nuclei_site(studies, nuclei_overrides={"fov_mpp": 0}))
