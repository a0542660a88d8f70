# SPDX-License-Identifier: Apache-2.0
"""The borders of numbered regions on a grid of cells, as closed walks along the cells' sides.

Borders are followed along the cells instead of uniting one square per cell: neighbours share their border exactly,
holes come out as holes, and the time grows with the length of the borders, not with the number of cells.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tral_monai.inference.map_grid import MapGrid

IntArray = npt.NDArray[np.int64]

# Directions of a border with its region on the right hand (y points down): east along the top of a cell, south along
# its right side, west along its bottom, north along its left side.
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
_LEFT = ((-1, 0), (0, 1), (1, 0), (0, -1))
_START_CORNER = ((0, 0), (0, 1), (1, 1), (1, 0))


@dataclasses.dataclass(frozen=True)
class Outlines:
    """The rings of all regions one after the other: those of region 1 first, of each its outer ring before its holes.

    Attributes:
        x: (corners,) int64 level-0 px; corners are where a ring turns, the first one is not repeated at its end.
        y: (corners,) int64 level-0 px.
        first_corner: (rings + 1,) int64 where each ring starts.
        first_ring: (regions + 1,) int64 where each region's rings start, which is its outer ring.
        area_px: (regions,) int64 area without the holes, level-0 px squared.
    """

    x: IntArray
    y: IntArray
    first_corner: IntArray
    first_ring: IntArray
    area_px: IntArray


def region_outlines(labels: npt.NDArray[np.int32], grid: MapGrid) -> Outlines:
    """Follow the borders of regions.

    Args:
        labels: (rows, columns) number of the region of each cell, 1 to n, 0 for none. Each number is one region whose
            cells touch along sides.
        grid: where the cells lie; its ``shape`` is that of ``labels``.

    Returns:
        The outlines of the regions 1 to n.

    Raises:
        ValueError: the shape is not the grid's.
    """
    if labels.shape != grid.shape:
        raise ValueError(f"the class map has shape {labels.shape}, but its grid has shape {grid.shape}")
    edge_label, start, following = _border_edges(labels)
    corner, first_corner, ring_label = _rings(edge_label, start, following)
    width = labels.shape[1] + 1
    x, y = grid.x_edges_level0[corner % width], grid.y_edges_level0[corner // width]
    sizes = np.diff(first_corner)
    after = np.arange(1, corner.size + 1)
    after[first_corner[1:] - 1] = first_corner[:-1]
    # With the region on the right hand and y pointing down, an outer ring's signed area is positive, a hole's negative.
    cross = np.concatenate([[0], np.cumsum(x * y[after] - x[after] * y)])
    area = np.diff(cross[first_corner]) // 2
    order = np.lexsort((area < 0, ring_label))
    # The corners of ring order[0], then those of order[1], and so on.
    moved = np.concatenate([[0], np.cumsum(sizes[order])])
    where = np.arange(corner.size) + np.repeat(first_corner[:-1][order] - moved[:-1], sizes[order])
    regions = int(ring_label.max(initial=0))
    return Outlines(
        x=x[where],
        y=y[where],
        first_corner=moved,
        first_ring=np.searchsorted(ring_label[order], np.arange(1, regions + 2)),
        area_px=np.bincount(ring_label, weights=area, minlength=regions + 1)[1:].astype(np.int64),
    )


def _border_edges(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], IntArray, IntArray]:
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
    edge_label: npt.NDArray[np.int32], start: IntArray, following: IntArray
) -> tuple[IntArray, IntArray, npt.NDArray[np.int32]]:
    """Closed walks along the edges: corners where they turn, where each walk's begin (rings + 1,), and its label."""
    step = start[following] - start
    # An edge is a turn where its direction differs from that of the edge before it.
    is_turn = np.empty(step.size, dtype=bool)
    is_turn[following] = step[following] != step
    next_turn = following.copy()
    while True:  # pointer doubling over straight stretches
        straight = ~is_turn[next_turn]
        if not straight.any():
            break
        next_turn[straight] = next_turn[next_turn[straight]]
    turns = np.flatnonzero(is_turn)
    follow = np.searchsorted(turns, next_turn[turns]).tolist()
    seen = bytearray(turns.size)
    walked: list[int] = []
    begins = [0]
    for first in range(turns.size):
        if seen[first]:
            continue
        turn = first
        while not seen[turn]:
            seen[turn] = 1
            walked.append(turn)
            turn = follow[turn]
        begins.append(len(walked))
    edges = turns[np.array(walked, dtype=np.int64)]
    first_corner = np.array(begins, dtype=np.int64)
    return start[edges], first_corner, edge_label[edges[first_corner[:-1]]]
