# SPDX-License-Identifier: Apache-2.0
"""Regions of equal class in a class map, as polygons whose vertices are corners of tiles.

Borders are followed along the cells instead of uniting one square per tile: neighbours share their border exactly,
holes come out as holes, and the time grows with the length of the borders, not with the number of tiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from tral_monai.inference.map_grid import MapGrid

# Directions of a border with its region on the right hand (y points down): east along the top of a cell, south along
# its right side, west along its bottom, north along its left side.
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
_LEFT = ((-1, 0), (0, 1), (1, 0), (0, -1))
_START_CORNER = ((0, 0), (0, 1), (1, 1), (1, 0))


@dataclasses.dataclass(frozen=True)
class ClassRegion:
    """One connected region of equal class.

    Attributes:
        geometry: valid polygon with integer vertices, level-0 px.
        value: the class map's value.
        tiles: number of cells.
        label: the region's number in ``label_regions``'s map.
    """

    geometry: shapely.Polygon
    value: int
    tiles: int
    label: int


def label_regions(
    class_index: npt.NDArray[np.uint8], values: Sequence[int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Number the connected regions of a class map; cells that meet only at a corner are not connected.

    Args:
        class_index: (rows, columns) class map.
        values: values to number; every other cell gets 0.

    Returns:
        (rows, columns) int32 region numbers from 1, and (regions + 1,) the class value of each number (entry 0 unused).
    """
    labels = np.zeros(class_index.shape, dtype=np.int32)
    value_of: list[npt.NDArray[np.uint8]] = [np.zeros(1, dtype=np.uint8)]
    total = 0
    for value in values:
        numbered, count = ndimage.label(class_index == value)
        labels += np.where(numbered > 0, numbered + total, 0).astype(np.int32)
        value_of.append(np.full(count, value, dtype=np.uint8))
        total += count
    return labels, np.concatenate(value_of)


def class_regions(class_index: npt.NDArray[np.uint8], grid: MapGrid, values: Sequence[int]) -> list[ClassRegion]:
    """Turn a class map into polygons, one per connected region.

    Args:
        class_index: (rows, columns) class map.
        grid: where its cells lie; its ``shape`` is the map's.
        values: class values to turn into polygons.

    Returns:
        Regions by value, then by their first cell in reading order.

    Raises:
        ValueError: the map's shape is not the grid's.
    """
    if class_index.shape != grid.shape:
        raise ValueError(f"the class map has shape {class_index.shape}, but its grid has shape {grid.shape}")
    labels, value_of = label_regions(class_index, values)
    tiles = np.bincount(labels.ravel(), minlength=value_of.size)
    polygons = _polygons(labels, grid)
    return [
        ClassRegion(polygon, int(value_of[label]), int(tiles[label]), label)
        for label, polygon in enumerate(polygons, start=1)
    ]


def _polygons(labels: npt.NDArray[np.int32], grid: MapGrid) -> npt.NDArray[np.object_]:
    """One polygon per label 1..n, in this order."""
    edge_label, start, following = _border_edges(labels)
    rings, ring_label = _rings(edge_label, start, following)
    if not rings:
        return np.empty(0, dtype=object)
    sizes = np.array([len(ring) for ring in rings])
    corners = np.concatenate(rings)
    width = labels.shape[1] + 1
    x, y = grid.x_edges_level0[corners % width], grid.y_edges_level0[corners // width]
    first = np.cumsum(sizes) - sizes
    after = np.arange(1, corners.size + 1)
    after[first + sizes - 1] = first
    # With the region on the right hand and y pointing down, the shell's signed area is positive, a hole's negative.
    is_shell = np.add.reduceat(x * y[after] - x[after] * y, first) > 0
    linear_rings = shapely.linearrings(
        np.stack([x, y], axis=1).astype(np.float64), indices=np.repeat(np.arange(sizes.size), sizes)
    )
    shells = np.empty(int(ring_label.max()), dtype=object)
    shells[ring_label[is_shell] - 1] = linear_rings[is_shell]
    polygons: npt.NDArray[np.object_] = shapely.polygons(shells)
    holes: dict[int, list[shapely.LinearRing]] = {}
    for label, ring in zip(ring_label[~is_shell].tolist(), linear_rings[~is_shell], strict=True):
        holes.setdefault(label, []).append(ring)
    for label, inner in holes.items():
        polygons[label - 1] = shapely.Polygon(shells[label - 1], inner)
    return polygons


def _border_edges(
    labels: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cell sides that lie on a region's border: label, start corner, and the edge that follows, each (edges,)."""
    rows, columns = labels.shape
    padded = np.zeros((rows + 2, columns + 2), dtype=np.int32)
    padded[1:-1, 1:-1] = labels

    def neighbour(down: int, right: int) -> npt.NDArray[np.int32]:
        return padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]

    cell = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    edge_number = np.full((4, rows * columns), -1, dtype=np.int64)
    label_parts, start_parts, next_parts = [], [], []
    for direction in range(4):
        (ahead_down, ahead_right), (left_down, left_right) = _AHEAD[direction], _LEFT[direction]
        on_border = (labels > 0) & (neighbour(left_down, left_right) != labels)
        own, where = labels[on_border], cell[on_border]
        ahead = neighbour(ahead_down, ahead_right)[on_border]
        across = neighbour(ahead_down + left_down, ahead_right + left_right)[on_border]
        # Turning left wherever the cell across the corner belongs to the region keeps every ring free of touching
        # itself: where two cells meet only at a corner, the shell and the hole pass it on separate rings.
        turn_left, straight = across == own, ahead == own
        ahead_cell = where + ahead_down * columns + ahead_right
        across_cell = ahead_cell + left_down * columns + left_right
        next_direction = np.where(turn_left, (direction - 1) % 4, np.where(straight, direction, (direction + 1) % 4))
        next_cell = np.where(turn_left, across_cell, np.where(straight, ahead_cell, where))
        down, right = _START_CORNER[direction]
        label_parts.append(own)
        start_parts.append((where // columns + down) * (columns + 1) + where % columns + right)
        next_parts.append(next_direction * (rows * columns) + next_cell)
        edge_number[direction, where] = np.arange(where.size) + sum(part.size for part in label_parts[:-1])
    following = edge_number.ravel()[np.concatenate(next_parts)]
    return np.concatenate(label_parts), np.concatenate(start_parts), following


def _rings(
    edge_label: npt.NDArray[np.int32], start: npt.NDArray[np.int64], following: npt.NDArray[np.int64]
) -> tuple[list[list[int]], npt.NDArray[np.int32]]:
    """Closed walks along the edges, each as the corners where it turns, and each one's label."""
    step = start[following] - start
    # An edge is a turn where its direction differs from that of the edge before it.
    turns = np.empty(step.size, dtype=bool)
    turns[following] = step[following] != step
    if not turns.any():
        return [], np.empty(0, dtype=np.int32)
    next_turn = following.copy()
    while True:  # pointer doubling over straight stretches
        straight = ~turns[next_turn]
        if not straight.any():
            break
        next_turn[straight] = next_turn[next_turn[straight]]
    corner, follow = start.tolist(), next_turn.tolist()
    seen = bytearray(step.size)
    rings, firsts = [], []
    for first in np.flatnonzero(turns).tolist():
        if seen[first]:
            continue
        ring, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            ring.append(corner[edge])
            edge = follow[edge]
        rings.append(ring)
        firsts.append(first)
    return rings, edge_label[np.array(firsts)]
