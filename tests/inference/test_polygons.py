# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.polygons import class_regions, label_regions

STEP = 10


def grid_of(class_map: npt.NDArray[np.uint8], step: float = STEP) -> MapGrid:
    rows, columns = class_map.shape
    grid = MapGrid(dimensions=(round(columns * step), round(rows * step)), step_level0=step)
    assert grid.shape == class_map.shape
    return grid


def as_map(*rows: str) -> npt.NDArray[np.uint8]:
    return np.array([[int(value) for value in row] for row in rows], dtype=np.uint8)


def cells(class_map: npt.NDArray[np.uint8], grid: MapGrid, value: int) -> shapely.Geometry:
    """The reference: one square per cell, united by GEOS."""
    rows, columns = np.nonzero(class_map == value)
    x, y = grid.x_edges_level0, grid.y_edges_level0
    return shapely.union_all(shapely.box(x[columns], y[rows], x[columns + 1], y[rows + 1]))


def test_one_cell_is_a_square_at_its_place() -> None:
    class_map = as_map("000", "010")
    (region,) = class_regions(class_map, grid_of(class_map), [1])
    assert region.geometry.equals(shapely.box(10, 10, 20, 20))
    assert (region.value, region.tiles, region.label) == (1, 1, 1)


def test_straight_borders_have_no_needless_vertices() -> None:
    class_map = as_map("1111", "1111", "1111")
    (region,) = class_regions(class_map, grid_of(class_map), [1])
    assert len(region.geometry.exterior.coords) == 5  # four corners, the first one twice
    assert region.geometry.bounds == (0, 0, 40, 30)


def test_a_ring_has_a_hole_and_the_island_inside_is_its_own_polygon() -> None:
    class_map = as_map("11111", "12221", "12321", "12221", "11111")
    ring, inner, island = class_regions(class_map, grid_of(class_map), [1, 2, 3])
    assert ring.geometry.equals(shapely.box(0, 0, 50, 50) - shapely.box(10, 10, 40, 40))
    assert inner.geometry.equals(shapely.box(10, 10, 40, 40) - shapely.box(20, 20, 30, 30))
    assert island.geometry.equals(shapely.box(20, 20, 30, 30))
    assert [region.tiles for region in (ring, inner, island)] == [16, 8, 1]


def test_cells_that_touch_at_a_corner_are_two_polygons() -> None:
    class_map = as_map("10", "01")
    first, second = class_regions(class_map, grid_of(class_map), [1])
    assert first.geometry.equals(shapely.box(0, 0, 10, 10))
    assert second.geometry.equals(shapely.box(10, 10, 20, 20))


def test_a_ring_that_closes_at_a_corner_is_valid_with_a_hole() -> None:
    # The hole at (1, 1) meets the outside at (0, 0) only in a corner.
    class_map = as_map("011", "101", "111")
    (region,) = class_regions(class_map, grid_of(class_map), [1])
    assert shapely.is_valid(region.geometry)
    assert len(region.geometry.interiors) == 1
    assert region.geometry.area == 7 * STEP**2


def test_two_holes_that_touch_at_a_corner_are_two_holes() -> None:
    class_map = as_map("1111", "1011", "1101", "1111")
    (region,) = class_regions(class_map, grid_of(class_map), [1])
    assert shapely.is_valid(region.geometry)
    assert sorted(shapely.Polygon(hole).bounds for hole in region.geometry.interiors) == [
        (10, 10, 20, 20),
        (20, 20, 30, 30),
    ]


def test_values_not_asked_for_give_nothing() -> None:
    class_map = as_map("12", "21")
    assert class_regions(class_map, grid_of(class_map), [3]) == []
    labels, value_of = label_regions(class_map, [2])
    assert labels.tolist() == [[0, 1], [2, 0]]
    assert value_of.tolist() == [0, 2, 2]


def test_the_last_cells_end_at_the_slides_border() -> None:
    grid = MapGrid(dimensions=(25, 14), step_level0=10.0)
    (region,) = class_regions(np.ones((2, 3), dtype=np.uint8), grid, [1])
    assert region.geometry.equals(shapely.box(0, 0, 25, 14))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.integers(0, 2)),
    st.sampled_from([1.0, 10.0, 12.7]),
)
def test_polygons_are_valid_disjoint_and_equal_the_cells(class_map: npt.NDArray[np.uint8], step: float) -> None:
    grid = MapGrid(dimensions=(int(class_map.shape[1] * step), int(class_map.shape[0] * step)), step_level0=step)
    assert grid.shape == class_map.shape
    regions = class_regions(class_map, grid, [0, 1, 2])
    assert all(shapely.is_valid(region.geometry) for region in regions)
    assert sum(region.tiles for region in regions) == class_map.size
    assert sum(region.geometry.area for region in regions) == grid.dimensions[0] * grid.dimensions[1]
    for value in range(3):
        union = shapely.union_all([region.geometry for region in regions if region.value == value])
        assert union.equals(cells(class_map, grid, value))


def smooth_map(rows: int, columns: int, seed: int) -> npt.NDArray[np.uint8]:
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=(5, rows, columns))
    return np.argmax([ndimage.gaussian_filter(layer, 1.2) for layer in noise], axis=0).astype(np.uint8)


def test_a_map_of_350_000_tiles_becomes_polygons_in_seconds() -> None:
    class_map = smooth_map(500, 700, seed=0)
    grid = grid_of(class_map, step=128)
    started = time.process_time()
    regions = class_regions(class_map, grid, [1, 2, 3, 4])
    assert time.process_time() - started < 4.0  # about 1 CPU-second alone; room for a loaded machine
    assert len(regions) > 1000
    assert sum(region.tiles for region in regions) == int((class_map > 0).sum())


def test_grid_and_map_must_fit() -> None:
    with pytest.raises(ValueError, match="class map has shape .2, 2., but"):
        class_regions(np.ones((2, 2), dtype=np.uint8), MapGrid(dimensions=(25, 14), step_level0=10.0), [1])
