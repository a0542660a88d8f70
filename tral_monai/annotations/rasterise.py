# SPDX-License-Identifier: Apache-2.0
"""Polygons to pixels by the centre rule: a pixel belongs to a polygon if its centre lies inside.

The library ways are slower or not exact: for the 3,712 regions (556,000 points) of a whole slide at 16 level-0 px per
pixel this takes 0.5 s, `shapely.contains_xy` 16 s, `skimage.draw.polygon` more than 10 min (it looks at every edge for
every pixel), and Pillow's polygons are a pixel wider along their edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely


def fill_polygons(
    mask: npt.NDArray[np.bool_],
    polygons: Sequence[shapely.Polygon | shapely.MultiPolygon],
    *,
    pitch: float,
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Set the pixels of a mask whose centres lie inside any of some polygons.

    A centre on an edge belongs to the polygon whose inside lies to the right of it (below it, on a horizontal edge),
    so that neighbours that share an edge never both own a pixel and never leave one out.

    Args:
        mask: bool (h, w), changed in place.
        polygons: valid polygons; rings inside count as holes.
        pitch: size of a pixel in the polygons' unit.
        origin: (column, row) of the mask's first pixel: pixel (r, c) has its centre at
            ``((origin[0] + c + 0.5) * pitch, (origin[1] + r + 0.5) * pitch)``.
    """
    height, width = mask.shape
    for polygon in polygons:
        rings = shapely.get_rings(shapely.get_parts(polygon))
        points, ring = shapely.get_coordinates(rings, return_index=True)
        points = points / pitch - 0.5 - np.asarray(origin)  # pixel centres now lie at whole numbers
        within = ring[1:] == ring[:-1]
        start, end = points[:-1][within], points[1:][within]
        downwards = (start[:, 1] <= end[:, 1])[:, None]
        upper, lower = np.where(downwards, start, end), np.where(downwards, end, start)
        # Rows whose centres an edge passes: upper y <= row < lower y.
        first = np.clip(np.ceil(upper[:, 1]), 0, height).astype(np.int64)
        last = np.clip(np.ceil(lower[:, 1]), 0, height).astype(np.int64)
        count = last - first
        total = int(count.sum())
        if total == 0:
            continue
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(total) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
        crossing = upper[edge, 0] + (row - upper[edge, 1]) * slope
        column = np.clip(np.ceil(crossing), 0, width).astype(np.int64)
        top, bottom, left, right = row.min(), row.max() + 1, column.min(), column.max()
        # Every crossing switches between outside and inside for the rest of its row.
        switch = np.zeros((bottom - top, right - left + 1), dtype=np.uint8)
        np.bitwise_xor.at(switch, (row - top, column - left), 1)
        inside = np.bitwise_xor.accumulate(switch, axis=1)[:, :-1]
        mask[top:bottom, left:right] |= inside.view(np.bool_)
