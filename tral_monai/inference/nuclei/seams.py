# SPDX-License-Identifier: Apache-2.0
"""One nucleus, one box: what tiles that overlap found, joined so that a nucleus on a seam comes once and whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tral_monai.inference.nuclei.tile_plan import FloatArray, IntArray, TilePlan

Boxes = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_EDGE_PX = 2.0  # a box that ends this close to its tile's edge is taken as cut by it
_COVERED = 0.6  # share of a cut box inside of another box from which on it is a part of the same nucleus
_NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))  # each pair of touching tiles once


def is_cut(plan: TilePlan, boxes_px: Boxes, tiles: IntArray) -> Mask:
    """Which boxes end at an edge of their tile that is no edge of the image.

    Args:
        plan: the tiles.
        boxes_px: (n, 4) boxes in pixels of the image.
        tiles: (n,) the tile that each was found in.

    Returns:
        (n,) bool.
    """
    low = plan.starts_px(tiles)
    high = low + np.array(plan.tile_size_px)
    at_low = (boxes_px[:, :2] <= low + _EDGE_PX) & (low > 0)
    at_high = (boxes_px[:, 2:] >= high - _EDGE_PX) & (high < np.array(plan.size_px))
    return np.asarray((at_low | at_high).any(axis=1))


def belongs(plan: TilePlan, boxes_px: Boxes, tiles: IntArray) -> Mask:
    """Which boxes a tile may answer for.

    These are the boxes with their centre in the tile's core, and whole boxes with their centre within a quarter of the
    overlap outside of it: two tiles place the box of one nucleus a little differently, so that each could see its
    centre in the other's core, and it would be lost. What comes twice by that, :func:`join` finds.

    Args:
        plan: the tiles.
        boxes_px: (n, 4) boxes in pixels of the image.
        tiles: (n,) the tile that each was found in.

    Returns:
        (n,) bool.
    """
    near = _in_core(plan, boxes_px, tiles, plan.overlap_px / 4)
    return near & (_in_core(plan, boxes_px, tiles, 0.0) | ~is_cut(plan, boxes_px, tiles))


def join(plan: TilePlan, boxes_px: Boxes, scores: npt.NDArray[np.float32], tiles: IntArray, *, iou: float) -> Mask:
    """Non-maximum suppression across seams, whatever the classes: only boxes of different tiles exclude each other.

    Two boxes are of one nucleus if their IoU reaches ``iou``, or if one is cut by its tile and mostly covered by the
    other. Whole boxes are kept before cut ones, then those with their centre in the core, then higher scores.

    Args:
        plan: the tiles.
        boxes_px: (n, 4) boxes that :func:`belongs` lets through, in pixels of the image.
        scores: (n,) their scores.
        tiles: (n,) the tile that each was found in, in rising order.
        iou: from which intersection over union on two boxes are one nucleus.

    Returns:
        (n,) bool, which boxes to keep.
    """
    cut = is_cut(plan, boxes_px, tiles)
    # lexsort's last key is its first: whole boxes, then those in the core, then high scores, then the given order.
    order = np.lexsort((np.arange(len(tiles)), -scores, ~_in_core(plan, boxes_px, tiles, 0.0), cut))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    rivals: dict[int, list[int]] = {}
    for first, second in _pairs(plan, boxes_px, tiles):
        for one, other in zip(*_same_nucleus(boxes_px, cut, first, second, iou), strict=True):
            rivals.setdefault(one, []).append(other)
            rivals.setdefault(other, []).append(one)
    keep = np.ones(len(tiles), dtype=bool)
    for box in sorted(rivals, key=lambda box: int(rank[box])):
        if keep[box]:
            keep[[other for other in rivals[box] if rank[other] > rank[box]]] = False
    return keep


def _in_core(plan: TilePlan, boxes_px: Boxes, tiles: IntArray, reach_px: float) -> Mask:
    cores = plan.cores_px(tiles)
    # Beyond the image's own edge there is no other tile, and a box may lean out of it.
    low = np.where(cores[:, :2] <= 0, -np.inf, cores[:, :2] - reach_px)
    high = np.where(cores[:, 2:] >= np.array(plan.size_px), np.inf, cores[:, 2:] + reach_px)
    centres = (boxes_px[:, :2].astype(np.float64) + boxes_px[:, 2:]) / 2
    return np.asarray(((centres >= low) & (centres < high)).all(axis=1))


def _pairs(plan: TilePlan, boxes_px: Boxes, tiles: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Of every two neighbouring tiles the boxes that reach into what both of them show."""
    found, starts, counts = np.unique(tiles, return_index=True, return_counts=True)
    rows_of = {int(tile): start + np.arange(n) for tile, start, n in zip(found, starts, counts, strict=True)}
    low_of = dict(zip(rows_of, plan.starts_px(found), strict=True))
    columns, size = plan.shape[1], np.array(plan.tile_size_px)
    for tile, first in rows_of.items():
        for down, right in _NEIGHBOURS:
            neighbour = tile + down * columns + right
            if 0 <= tile % columns + right < columns and neighbour in rows_of:
                low = np.maximum(low_of[tile], low_of[neighbour])
                high = np.minimum(low_of[tile], low_of[neighbour]) + size
                yield _reaching(boxes_px, first, low, high), _reaching(boxes_px, rows_of[neighbour], low, high)


def _reaching(boxes_px: Boxes, rows: IntArray, low: IntArray, high: IntArray) -> IntArray:
    boxes = boxes_px[rows]
    return np.asarray(rows[((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(axis=1)])


def _same_nucleus(
    boxes: Boxes, cut: Mask, first: IntArray, second: IntArray, iou: float
) -> tuple[list[int], list[int]]:
    a, b = boxes[first][:, None], boxes[second][None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    area_a, area_b = _area(boxes[first])[:, None], _area(boxes[second])[None]
    same = shared >= iou * (area_a + area_b - shared)
    same |= cut[first][:, None] & (shared >= _COVERED * area_a)
    same |= cut[second][None] & (shared >= _COVERED * area_b)
    one, other = np.nonzero(same & (shared > 0))
    return first[one].tolist(), second[other].tolist()


def _area(boxes: Boxes) -> FloatArray:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), dtype=np.float64)
