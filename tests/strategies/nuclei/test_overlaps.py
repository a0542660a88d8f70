# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies.nuclei.outputs import boxes
from tral_monai.strategies.nuclei import overlaps
from tral_monai.strategies.nuclei.overlaps import best_overlaps, paired_iou


def test_paired_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [3, 3, 3, 3]], dtype=np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 8, 8], [3, 3, 3, 3]], dtype=np.float32)
    # 50 / 150; touching edges share nothing; 36 / 100; no area at all.
    assert paired_iou(a, b) == pytest.approx([1, 1 / 3, 0, 0.36, 0])


def test_best_overlap_by_hand() -> None:
    reference = boxes([2, 1, 0, 1], boxes_px=[[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 4, 4], [0, 0, 10, 10]])
    other = boxes([2, 0, 1, 2], boxes_px=[[90, 0, 99, 9], [0, 0, 10, 5], [0, 0, 4, 4], [0, 0, 5, 10], [5, 0, 10, 10]])
    iou, match = best_overlaps(reference, other)
    # Image 0: half of box 1; box [50, 50] overlaps nothing and takes the first. Image 1: nothing to match with.
    # Image 3: two equal halves, the first counts.
    assert iou == pytest.approx([0.5, 0, 0, 0.5])
    assert match.tolist() == [1, 0, -1, 3]


def test_boxes_without_area_overlap_by_nothing() -> None:
    one = boxes([1], boxes_px=[[5, 5, 5, 5]])
    iou, match = best_overlaps(one, one)
    assert iou.tolist() == [0]
    assert match.tolist() == [0]


def test_no_boxes_at_all() -> None:
    iou, match = best_overlaps(boxes([0, 0]), boxes([0, 1]))
    assert len(iou) == len(match) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), pairs=st.sampled_from([1, 7, 100, 1 << 15]))
def test_blocks_against_a_plain_loop(seed: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    counts, others = rng.integers(0, 9, size=12), rng.integers(0, 9, size=12)

    def some(total: int) -> np.ndarray:
        corner = rng.uniform(0, 40, (total, 2))
        return np.concatenate([corner, corner + rng.uniform(0, 20, (total, 2))], axis=1).astype(np.float32)

    reference = boxes(counts.tolist(), boxes_px=some(counts.sum()))
    other = boxes(others.tolist(), boxes_px=some(others.sum()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "_PAIRS", pairs)
        iou, match = best_overlaps(reference, other)
    for row, (image, box) in enumerate(zip(reference.image_of_box, reference.boxes_px, strict=True)):
        start, stop = other.offsets[image : image + 2]
        if start == stop:
            assert (iou[row], match[row]) == (0, -1)
            continue
        expected = paired_iou(np.tile(box, (stop - start, 1)), other.boxes_px[start:stop])
        assert iou[row] == pytest.approx(expected.max(), abs=1e-6)
        assert start <= match[row] < stop
        assert expected[match[row] - start] == pytest.approx(expected.max(), abs=1e-6)
