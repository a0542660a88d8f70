# SPDX-License-Identifier: Apache-2.0
"""Overlap of boxes: of each box with its proposal, and of each box with all boxes of another pass over the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import FloatArray, IntArray

_PAIRS = 1 << 15  # pairs looked at together: the block's arrays then stay in the processor's cache


def paired_iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> FloatArray:
    """Intersection over union of box i of `a` (B, 4) with box i of `b` (B, 4) -> (B,); 0 where both have no area."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = np.maximum(sides, 0.0).prod(axis=1)
    union = _areas(a) + _areas(b) - common
    return np.divide(common, union, out=np.zeros(len(a)), where=union > 0)


def best_overlaps(reference: Detections, other: Detections) -> tuple[FloatArray, IntArray]:
    """For each box of `reference` the box of the same image in `other` that overlaps it most.

    Images are taken in blocks of about the same numbers of boxes, padded to a rectangle, so that no Python loop runs
    over images or boxes.

    Args:
        reference: B boxes in n images.
        other: Boxes in the same n images.

    Returns:
        (B,) the highest intersection over union, and (B,) the row in `other` that has it: the first of equals, also
        where nothing overlaps; -1 with 0 where the image has no box in `other`.
    """
    counts, others = reference.counts, other.counts
    best = np.zeros(len(reference.boxes_px))
    match = np.full(len(best), -1, dtype=np.int64)
    a = np.ascontiguousarray(np.asarray(reference.boxes_px, dtype=np.float32).T)
    b = np.ascontiguousarray(np.asarray(other.boxes_px, dtype=np.float32).T)
    area_a, area_b = _areas(a.T), _areas(b.T)
    images = np.flatnonzero((counts > 0) & (others > 0))
    images = images[np.lexsort((others[images], counts[images]))]
    start = 0
    while start < len(images):
        stop = _block_end(counts[images], others[images], start)
        block = images[start:stop]
        start = stop
        i = np.arange(counts[block].max())
        j = np.arange(others[block].max())
        real_i, real_j = i < counts[block][:, None], j < others[block][:, None]
        rows_a = np.where(real_i, reference.offsets[block][:, None] + i, reference.offsets[block][:, None])
        rows_b = np.where(real_j, other.offsets[block][:, None] + j, other.offsets[block][:, None])
        left, top, right, bottom = (a[:, rows_a])[..., None]
        other_left, other_top, other_right, other_bottom = (b[:, rows_b])[:, :, None, :]
        width = np.minimum(right, other_right)
        width -= np.maximum(left, other_left)
        np.maximum(width, 0.0, out=width)
        height = np.minimum(bottom, other_bottom)
        height -= np.maximum(top, other_top)
        np.maximum(height, 0.0, out=height)
        common = np.multiply(width, height, out=width)
        union = np.add(area_a[rows_a][..., None], area_b[rows_b][:, None, :], out=height)
        union -= common
        np.maximum(union, np.finfo(np.float32).tiny, out=union)  # two boxes without area overlap by 0, not 0 / 0
        iou = np.divide(common, union, out=common)
        # Padding repeats the image's first box, which comes earlier and so wins; no mask over the pairs is needed.
        which = iou.argmax(axis=2)
        value = np.take_along_axis(iou, which[..., None], axis=2)[..., 0]
        best[rows_a[real_i]] = value[real_i]
        match[rows_a[real_i]] = (other.offsets[block][:, None] + which)[real_i]
    return best, match


def _block_end(counts: IntArray, others: IntArray, start: int) -> int:
    """Where a block that starts at `start` ends, of images sorted by `counts` then `others`; at least one image."""
    size = max(1, _PAIRS // int(counts[start] * max(others[start], 1)))
    while size > 1:
        part = slice(start, start + size)
        pairs = len(counts[part]) * int(counts[part].max() * others[part].max())
        if pairs <= _PAIRS:
            break
        size = max(1, size // 2)
    return min(start + size, len(counts))


def _areas(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
