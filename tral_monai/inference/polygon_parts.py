# SPDX-License-Identifier: Apache-2.0
"""Polygons with holes as polygons without, for clients whose formats know no holes: the same area, cut into parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely


def parts_without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """Cut a polygon so that no part has a hole; the parts cover it exactly and do not overlap.

    Cuts run along the sides of holes' bounding boxes, so that corners on whole pixels stay there. Each cut is chosen to
    open many holes at once and to leave similar numbers on both sides, so that parts stay few and the time grows a
    little faster than the number of corners.

    Args:
        polygon: a valid polygon.

    Returns:
        One or more valid polygons.
    """
    done: list[shapely.Polygon] = []
    waiting = [polygon]
    while waiting:
        part = waiting.pop()
        if not part.interiors:
            done.append(part)
            continue
        waiting.extend(_opened(part))
    return done


def _opened(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """Pieces with fewer holes in all."""
    axis, place = _best_cut(polygon)
    pieces = _cut(polygon, axis, place)
    if sum(len(piece.interiors) for piece in pieces) < len(polygon.interiors):
        return pieces
    # The hole ends in a single corner there, and stays a hole that touches the border: cut through its middle.
    low, high = shapely.Polygon(polygon.interiors[0]).bounds[axis::2]
    return _cut(polygon, axis, (low + high) / 2)


def _best_cut(polygon: shapely.Polygon) -> tuple[int, float]:
    """Axis (0: x, 1: y) and place of the cut that opens most holes, among those near the middle of the holes."""
    boxes: npt.NDArray[np.float64] = shapely.bounds(np.array(polygon.interiors, dtype=object))
    best = (0, 0, 0.0)  # holes opened, axis, place
    for axis in (0, 1):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        # The middle of a hole would do too, but may lie between pixels, and it cuts a hole of one tile in two.
        places = np.sort(low)
        for place in np.unique(places[len(places) // 4 : max(3 * len(places) // 4, len(places) // 4 + 1)]):
            opened = int(np.count_nonzero((low <= place) & (place < high)))
            if opened > best[0]:
                best = (opened, axis, float(place))
    return best[1], best[2]


def _cut(polygon: shapely.Polygon, axis: int, place: float) -> list[shapely.Polygon]:
    xmin, ymin, xmax, ymax = polygon.bounds
    if axis == 0:
        sides = shapely.box(xmin, ymin, place, ymax), shapely.box(place, ymin, xmax, ymax)
    else:
        sides = shapely.box(xmin, ymin, xmax, place), shapely.box(xmin, place, xmax, ymax)
    pieces = shapely.get_parts(shapely.intersection(polygon, np.array(sides, dtype=object)))
    return [piece for piece in pieces.tolist() if isinstance(piece, shapely.Polygon) and piece.area > 0]
