# SPDX-License-Identifier: Apache-2.0
"""Polygons as closed lines, for formats without holes such as ASAP XML: a polygon is cut through its holes."""

from __future__ import annotations

import shapely

Contour = list[tuple[float, float]]


def contours_of(polygon: shapely.Polygon) -> list[Contour]:
    """The borders of a polygon's parts, none of which has a hole; together they cover what the polygon covers.

    Every cut is a vertical line through the middle of a hole, at a whole pixel where the hole is two pixels wide or
    more, so that corners of tiles stay whole pixels.

    Args:
        polygon: a valid polygon, level-0 px.

    Returns:
        One list of (x, y) per part, the first point not repeated; none for an empty polygon.
    """
    waiting, contours = [polygon], []
    while waiting:
        part = waiting.pop()
        if part.is_empty:
            continue
        if not part.interiors:
            contours.append([(x, y) for x, y in part.exterior.coords[:-1]])
            continue
        left, _, right, _ = part.interiors[0].bounds
        middle = (left + right) / 2
        cut = round(middle) if left < round(middle) < right else middle
        x_min, y_min, x_max, y_max = part.bounds
        for half in (shapely.box(cut, y_min, x_max, y_max), shapely.box(x_min, y_min, cut, y_max)):
            pieces = shapely.get_parts(part.intersection(half))  # where the halves touch, also lines and points
            waiting += [piece for piece in pieces if isinstance(piece, shapely.Polygon)]
    return contours
