# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest
import shapely

from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.polygon_parts import parts_without_holes
from tral_monai.inference.polygons import class_regions


def check(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """The parts, once it is sure that they cover the polygon exactly and do not overlap."""
    parts = parts_without_holes(polygon)
    assert all(part.is_valid and not part.interiors for part in parts)
    assert sum(part.area for part in parts) == pytest.approx(polygon.area)  # the same area and union: no overlap
    assert shapely.union_all(parts).equals(polygon)
    return parts


def test_a_polygon_without_holes_stays_as_it_is() -> None:
    triangle = shapely.Polygon([(0, 0), (10, 0), (0, 10)])
    assert parts_without_holes(triangle) == [triangle]


def test_a_frame_becomes_two_parts_with_whole_corners() -> None:
    frame = shapely.box(0, 0, 100, 80) - shapely.box(30, 20, 60, 50)
    parts = check(frame)
    assert len(parts) == 2
    assert {part.area for part in parts} == {30 * 80, 70 * 80 - 30 * 30}
    corners = shapely.get_coordinates(parts)
    assert (corners == np.round(corners)).all()


def test_one_cut_opens_holes_that_lie_in_a_row() -> None:
    polygon = shapely.box(0, 0, 100, 100)
    for y in range(10, 100, 20):
        polygon -= shapely.box(40, y, 60, y + 10)
    assert len(check(polygon)) == 2


def test_holes_that_end_in_a_corner_are_cut_through_their_middle() -> None:
    diamond = shapely.Polygon([(50, 30), (70, 50), (50, 70), (30, 50)])
    parts = check(shapely.box(0, 0, 100, 100) - diamond)
    assert 2 <= len(parts) <= 3


def test_many_holes_take_few_parts_and_little_time() -> None:
    rng = np.random.default_rng(0)
    tissue = np.where(rng.random((150, 150)) < 0.9, 1, 0).astype(np.uint8)
    grid = MapGrid(dimensions=(150 * 128, 150 * 128), step_level0=128.0)
    largest = max(class_regions(tissue, grid, [1]), key=lambda region: region.tiles).geometry
    holes = len(largest.interiors)
    assert holes > 1000
    started = time.perf_counter()
    parts = check(largest)
    assert time.perf_counter() - started < 20
    assert len(parts) < 2 * holes
    corners = shapely.get_coordinates(parts)
    assert (corners % 128 == 0).all()
