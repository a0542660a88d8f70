# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shapely

from tral_monai.inference.contours import contours_of


def covered(polygon: shapely.Polygon) -> shapely.Geometry:
    """What the contours cover together; they must not overlap."""
    parts = [shapely.Polygon(contour) for contour in contours_of(polygon)]
    assert all(part.is_valid for part in parts)
    union = shapely.union_all(parts)
    assert sum(part.area for part in parts) == union.area
    return union


def test_a_polygon_without_holes_is_its_border() -> None:
    triangle = shapely.Polygon([(0, 0), (10, 0), (0, 5)])
    assert contours_of(triangle) == [[(0, 0), (10, 0), (0, 5)]]


def test_an_empty_polygon_has_none() -> None:
    assert contours_of(shapely.Polygon()) == []


def test_a_hole_is_cut_through_at_a_whole_pixel() -> None:
    # 100 x 60 with a hole of 21 x 20: the cut through its middle (50.5) is at x = 50.
    ring = shapely.box(0, 0, 100, 60) - shapely.box(40, 20, 61, 40)
    left, right = contours_of(ring)
    assert shapely.Polygon(left).bounds == (0, 0, 50, 60)
    assert shapely.Polygon(right).bounds == (50, 0, 100, 60)
    assert shapely.Polygon(left).area == 50 * 60 - 10 * 20
    assert shapely.Polygon(right).area == 50 * 60 - 11 * 20
    assert all(number == int(number) for contour in (left, right) for point in contour for number in point)


def test_a_hole_of_one_pixel_is_cut_too() -> None:
    ring = shapely.box(0, 0, 10, 10) - shapely.box(4, 4, 5, 5)
    assert [shapely.Polygon(contour).area for contour in contours_of(ring)] == [44.5, 54.5]


def test_many_holes_one_of_them_bent() -> None:
    bent = shapely.union_all([shapely.box(10, 10, 50, 20), shapely.box(10, 10, 20, 50)])
    holes = [bent, shapely.box(30, 30, 50, 50), shapely.box(60, 10, 90, 90)]
    polygon = shapely.box(0, 0, 100, 100) - shapely.union_all(holes)
    assert len(polygon.interiors) == 3
    assert covered(polygon).equals(polygon)
    assert polygon.area == 10_000 - 700 - 400 - 2400
