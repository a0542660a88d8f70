# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import shapely

from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.errors import AnnotationError
from tral_monai.rounds.regions.slide_grid import _part_inside, area_purposes, covered, region_boxes, slide_regions
from tral_monai.slides import TissueMask, open_slide, tissue_mask


def test_squares_lie_on_the_tile_grid_and_inside_the_slide():
    # 64 um are 128 px at 0.5 um; 300 px hold two of them, 128 px one.
    boxes = region_boxes((300, 128), 0.5, 64.0, evenly=False)
    assert boxes.tolist() == [[0, 0, 128, 128], [128, 0, 128, 128]]


def test_squares_of_a_fractional_size_do_not_overlap():
    # 64 um are 128.4 px here: squares of 128 px at 0, 128.4, 256.8, 385.2.
    boxes = region_boxes((600, 128), 64 / 128.4, 64.0, evenly=False)
    assert boxes[:, 0].tolist() == [0, 128, 257, 385]
    assert set(boxes[:, 2]) == {128}


def test_a_field_is_divided_evenly_so_that_nothing_is_left_over():
    # 1000 px and 300 px in parts of about 256 px: four of 250, and one of 300.
    boxes = region_boxes((1000, 300), 0.25, 64.0, evenly=True)
    assert boxes.tolist() == [[x, 0, 250, 300] for x in (0, 250, 500, 750)]


def test_an_image_smaller_than_a_region_is_one_region():
    assert region_boxes((40, 30), 0.25, 64.0, evenly=True).tolist() == [[0, 0, 40, 30]]


def test_a_slide_thinner_than_a_region_is_as_thin_as_it_is():
    assert region_boxes((600, 100), 0.25, 64.0, evenly=False).tolist() == [[0, 0, 256, 100], [256, 0, 256, 100]]


def test_covered_is_exact_between_pixels_of_the_mask():
    mask = TissueMask(np.array([[True, False], [True, False]]), mpp=4.0, downsample_level0=16.0)
    # The left half; half of one pixel of three; all; outside.
    parts = covered(mask, [[0, 0, 32, 32], [8, 0, 24, 32], [4, 4, 8, 8], [16, 0, 16, 16]])
    np.testing.assert_allclose(parts, [0.5, 1 / 3, 1.0, 0.0])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """16 x 12 cells of 64 um: tissue in rows 2 to 9 and columns 2 to 13; the hole in it is small enough to count."""
    return write_slide(tmp_path_factory.mktemp("slide") / "s.tif", slide_pixels(), mpp=0.5)


def test_the_regions_of_a_slide_are_those_on_its_tissue(path):
    with open_slide(path) as slide:
        table = slide_regions(slide, 64.0, tissue_mask(slide), None, np.random.default_rng(0))
    cells = {(x // 128, y // 128) for x, y in table[["x_level0", "y_level0"]].to_numpy().tolist()}
    assert cells == {(x, y) for x in range(2, 14) for y in range(2, 10)}
    assert (table["width_level0"] == 128).all()
    assert (table["height_level0"] == 128).all()
    assert table["tissue"].min() > 0.9
    assert (table["mpp"] == 0.5).all()
    assert (table["area"] == "").all()


def test_cells_tell_which_parts_of_a_region_are_tissue(path):
    # The region of 192 um at (128, 128) px has glass in its first row and column of cells of 128 px each.
    with open_slide(path) as slide:
        table = slide_regions(slide, 192.0, tissue_mask(slide), None, np.random.default_rng(0))
    by_place = table.set_index(["x_level0", "y_level0"])["cells"]
    assert by_place[384, 384] == 0b111_111_111
    assert by_place[0, 384] == 0b100_100_100  # columns 0 to 2: tissue begins in column 2


def write_areas(path, *named):
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[a, b], [c, b], [c, d], [a, d], [a, b]]]},
            "properties": {"name": name, "classification": {"name": klass}},
        }
        for name, klass, (a, b, c, d) in named
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_areas_give_purposes(path, tmp_path):
    areas = write_areas(
        tmp_path / "areas.geojson",
        ("train", "Stroma", (256, 256, 512, 384)),  # cells 2 and 3 of row 2
        ("a", "val", (640, 256, 672, 384)),  # a quarter of cell 5
        ("b", "Stroma", (800, 256, 831, 384)),  # less than a quarter of cell 6
        ("TEST", "Stroma", (896, 256, 1024, 384)),  # cell 7
        ("train", "Stroma", (1024, 256, 1140, 384)),  # nine tenths of cell 8 ...
        ("val", "Stroma", (1140, 256, 1152, 384)),  # ... and the rest, which is more than a twentieth
    )
    with open_slide(path) as slide:
        table = slide_regions(slide, 64.0, tissue_mask(slide), areas, np.random.default_rng(0))
    found = {(x // 128, y // 128): area for x, y, area in table[["x_level0", "y_level0", "area"]].to_numpy()}
    assert found == {(2, 2): "train", (3, 2): "train", (5, 2): "val"}


def test_what_areas_are_for_and_how_much_of_a_region_lies_in_them(tmp_path):
    """A region wholly inside, one whose corner is cut off, and one in the hole of a ring-shaped area."""
    areas = write_areas(tmp_path / "areas.geojson", ("train", "Stroma", (0, 0, 50, 40)), ("test", "x", (90, 0, 99, 9)))
    assert area_purposes(areas) == {"train"}
    ring = shapely.box(0, 0, 300, 300) - shapely.box(100, 100, 200, 200)
    rectangles = shapely.box(
        np.array([0, 80, 110, 290, 400]), np.array([0, 0, 110, 290, 0]),
        np.array([40, 120, 190, 310, 410]), np.array([40, 120, 190, 310, 9]),
    )  # fmt: skip
    # The second shares 40 x 120 px less 20 x 20 px of the hole with the ring; of the fourth, a quarter lies in it.
    np.testing.assert_allclose(_part_inside(rectangles, ring), [1.0, 1 - 400 / 4800, 0.0, 0.25, 0.0])


def test_areas_without_an_outline_are_refused(path, tmp_path):
    areas = write_areas(tmp_path / "areas.geojson")
    with (
        open_slide(path) as slide,
        pytest.raises(AnnotationError, match=r"areas.geojson: holds no outline of an area"),
    ):
        slide_regions(slide, 64.0, None, areas, np.random.default_rng(0))


def test_of_very_many_regions_some_are_drawn(path, monkeypatch):
    monkeypatch.setattr("tral_monai.rounds.regions.slide_grid.MAX_PER_SLIDE", 10)
    with open_slide(path) as slide:
        draws = [slide_regions(slide, 64.0, None, None, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    places = [list(map(tuple, table[["y_level0", "x_level0"]].to_numpy().tolist())) for table in draws]
    assert len(set(places[0])) == 10
    assert places[0] == sorted(places[0]) == places[1]
    assert places[0] != places[2]
