# SPDX-License-Identifier: Apache-2.0
import collections
import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tral_monai.annotations import polygonal, read_annotations
from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.annotations.tile_labels import label_tiles
from tral_monai.errors import ConfigError
from tral_monai.slides import TissueMask

GRID = TileGrid((1280, 1280), 0.25)  # 10 x 10 tiles of 128 px; a pixel of the mask is 16 px


def tiles(labels):
    return {(int(r), int(c)): name for r, c, name in zip(labels.rows, labels.columns, labels.classes, strict=True)}


@pytest.mark.parametrize(
    ("width_px", "rows_px", "kept"),
    [(8, 6, True), (8, 5, False), (5, 8, False), (6, 8, True), (8, 8, True)],
)
def test_a_tile_needs_more_than_seven_tenths_of_its_cell(width_px, rows_px, kept):
    # 45 of 64 is the least that is more than 0.7: 6 rows of 8 are 48, 5 rows are 40.
    area = shapely.box(256, 128, 256 + 16 * width_px, 128 + 16 * rows_px)
    labels = label_tiles({"A": [area]}, GRID, classes=["A"])
    assert tiles(labels) == ({(1, 2): "A"} if kept else {})
    assert labels.coverage.tolist() == ([width_px * rows_px / 64] if kept else [])
    assert labels.coverage.dtype == np.float32


def test_45_pixels_are_enough_and_44_are_not():
    for last, kept in ((5, True), (4, False)):
        steps = shapely.union_all([shapely.box(0, 0, 128, 80), shapely.box(0, 80, 16 * last, 96)])
        assert label_tiles({"A": [steps]}, GRID, classes=["A"]).rows.size == kept


def test_the_same_field_is_labelled_on_scans_of_any_resolution():
    for mpp in (0.125, 0.25, 0.5, 0.2427):
        scale = 0.25 / mpp
        grid = TileGrid((round(1280 * scale), round(1280 * scale)), mpp)
        area = shapely.box(*(np.array([120, 120, 650, 400]) * scale))
        labels = label_tiles({"A": [area]}, grid, classes=["A"])
        assert set(tiles(labels)) == {(r, c) for r in (1, 2) for c in (1, 2, 3, 4)}


def test_priority_classes_are_carved_out_of_the_others():
    stroma, vessel, invasive = shapely.box(0, 0, 512, 128), shapely.box(128, 0, 256, 128), shapely.box(192, 0, 384, 128)
    areas = {"Stroma": [stroma], "Blood": [vessel], "Invasive": [invasive]}
    labels = label_tiles(areas, GRID, classes=["Blood", "Stroma"], carve_out=["Invasive", "Blood"])
    # Invasive takes half of the vessel's tile and all of the next; it gives no tile itself.
    assert tiles(labels) == {(0, 0): "Stroma", (0, 3): "Stroma"}
    labels = label_tiles(areas, GRID, classes=["Blood", "Stroma"], carve_out=["Blood"])
    assert tiles(labels) == {(0, 0): "Stroma", (0, 1): "Blood", (0, 2): "Stroma", (0, 3): "Stroma"}
    assert labels.contested == 0


def test_a_contested_tile_goes_to_the_class_with_most_of_it_then_to_the_first():
    areas = {"A": [shapely.box(0, 0, 112, 128), shapely.box(128, 0, 256, 128)], "B": [shapely.box(0, 0, 256, 128)]}
    labels = label_tiles(areas, GRID, classes=["A", "B"])
    assert tiles(labels) == {(0, 0): "B", (0, 1): "A"}
    assert labels.contested == 2
    assert tiles(label_tiles(areas, GRID, classes=["B", "A"])) == {(0, 0): "B", (0, 1): "B"}


def test_only_tissue_counts_when_a_mask_is_given():
    mask = np.zeros((40, 40), bool)
    mask[:, 4:] = True  # 32 level-0 px per mask pixel: tissue from x = 128 on
    labels = label_tiles({"A": [shapely.box(0, 0, 256, 128)]}, GRID, classes=["A"], tissue=TissueMask(mask, 8.0, 32.0))
    assert tiles(labels) == {(0, 1): "A"}


def test_what_lies_outside_of_the_slide_does_not_count():
    grid = TileGrid((208, 128), 0.25)  # the second tile has its centre on the slide, but only 5 of 8 columns
    labels = label_tiles({"A": [shapely.box(-500, -500, 900, 900)]}, grid, classes=["A"])
    assert tiles(labels) == {(0, 0): "A"}
    assert tiles(label_tiles({"A": [shapely.box(-500, -500, -1, 900)]}, grid, classes=["A"])) == {}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 48, 64, 128, 160, 256]), st.sampled_from([0.25, 0.31]))
def test_coverage_is_the_share_of_the_64_pixel_centres_at_any_stride(seed, stride_px, mpp):
    generator = np.random.default_rng(seed)
    grid = TileGrid((1000, 700), mpp, stride_px)
    angle = np.sort(generator.uniform(0, 2 * np.pi, 12))
    radius = generator.uniform(50, 500, 12)
    polygon = shapely.Polygon(generator.uniform(0, 700, 2) + np.c_[np.cos(angle), np.sin(angle)] * radius[:, None])
    polygon = shapely.make_valid(polygon)
    labels = label_tiles({"A": list(shapely.get_parts(polygon))}, grid, classes=["A"], coverage=0.0)
    pixel = grid.tile_level0 / 8
    expected = {}
    for row, column in np.ndindex(*grid.shape):
        x = column * grid.step_level0 + (np.arange(8) + 0.5) * pixel
        y = row * grid.step_level0 + (np.arange(8) + 0.5) * pixel
        x, y = np.meshgrid(x, y)
        part = (shapely.contains_xy(polygon, x, y) & (x < 1000) & (y < 700)).mean()
        if part > 0:
            expected[row, column] = part
    found = zip(labels.rows.tolist(), labels.columns.tolist(), labels.coverage.tolist(), strict=True)
    assert {(r, c): part for r, c, part in found} == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coverage": 1.0}, "coverage must be at least 0 and below 1, but is 1.0"),
        ({"coverage": -0.1}, "coverage must be at least 0"),
        ({"grid": TileGrid((10, 10), 0.25, 100)}, "stride_px must be a multiple of 16 for labelled tiles, but is 100"),
    ],
)
def test_wrong_arguments(settings, message):
    with pytest.raises(ConfigError, match=message):
        label_tiles({}, classes=["A"], **{"grid": GRID, **settings})


def test_no_outline_gives_no_tile():
    assert label_tiles({}, GRID, classes=["A"]).rows.size == 0


def test_100_000_tiles_take_seconds():
    grid = TileGrid((128 * 400, 128 * 250), 0.25)
    angle = np.linspace(0, 2 * np.pi, 3000)
    wave = 2000 * (1 + 0.3 * np.sin(37 * angle))[:, None] * np.c_[np.cos(angle), np.sin(angle)]
    areas = {
        name: [
            shapely.Polygon(wave + np.array([x, y]))
            for x in range(2500, 50_000, 5000)
            for y in range(2500, 30_000, 5000)
        ]
        for name in ("A", "B", "C")
    }
    areas["D"] = [shapely.box(0, 0, *grid.dimensions)]
    started = time.process_time()
    labels = label_tiles(areas, grid, classes=["A", "B", "C", "D"])
    assert labels.rows.size == 100_000
    assert time.process_time() - started < 10


def test_the_slide_of_3712_regions(tral_data):
    annotations = read_annotations(tral_data / "gyn_polygons/hgsc_slide_tissue.geojson.gz")
    areas = collections.defaultdict(list)
    for annotation in annotations:
        area = polygonal(annotation, problems=[])
        if area is not None:
            areas[annotation.class_name].append(area)
    grid = TileGrid((47_000, 66_200), 0.25)
    labels = label_tiles(areas, grid, classes=sorted(areas))
    counts = collections.Counter(labels.classes.tolist())
    assert counts.total() + labels.contested > 50_000
    for name in ("stroma", "tumor", "omental_fat"):
        # Large regions: the tiles inside of them sum up to most of their area.
        area = sum(polygon.area for polygon in areas[name]) / 128**2
        assert 0.6 * area < counts[name] < 1.1 * area
