# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import AgreementError, ConfigError
from tral_monai.inference.nuclei.detection_agreement import detection_agreement

Box = tuple[float, int, float]  # x of a box of 10 x 10 px, class, score


def _found(*images: Sequence[Box]) -> Detections:
    boxes = [box for image in images for box in image]
    return Detections(
        offsets=np.cumsum([0, *(len(image) for image in images)]),
        boxes_px=np.array([[x, 0, x + 10, 10] for x, _, _ in boxes], dtype=np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in boxes], dtype=np.int64),
        scores=np.array([score for *_, score in boxes], dtype=np.float32),
    )


def test_the_worse_direction_counts() -> None:
    reference = _found([(0, 0, 0.9), (50, 1, 0.8)], [(0, 0, 0.7), (50, 0, 0.6)])
    # Moved by 2 of 10 px: IoU 8/12. Of another class. Moved by 5: IoU 1/3. One too many.
    other = _found([(2, 0, 0.8), (50, 0, 0.8)], [(5, 0, 0.7), (50, 0, 0.5), (90, 0, 0.9)])
    found = detection_agreement(reference, other)
    assert (found.tiles, found.boxes_reference, found.boxes_other, found.not_finite) == (2, 4, 5, 0)
    assert found.class_agreement == pytest.approx(2 / 5)
    assert (found.compared, found.differing, found.describe()["boxes_alone"]) == (5, 3, 3)
    assert found.largest_probability_difference == pytest.approx(0.1)


def test_a_box_is_the_partner_of_one() -> None:
    found = detection_agreement(_found([(0, 0, 0.5), (1, 0, 0.9)]), _found([(1, 0, 0.75)]))
    assert found.class_agreement == 0.5
    assert found.largest_probability_difference == pytest.approx(0.15)  # the better box has it


def test_boxes_below_the_threshold_need_no_partner_but_can_be_one() -> None:
    reference = _found([(0, 0, 0.51), (30, 0, 0.2)])
    other = _found([(0, 0, 0.49), (60, 0, 0.3)])
    found = detection_agreement(reference, other, min_score=0.5)
    assert (found.class_agreement, found.boxes_reference, found.boxes_other) == (1.0, 1, 0)


def test_nothing_found_by_both_is_agreement() -> None:
    nothing = detection_agreement(_found([], []), _found([], []))
    assert (nothing.class_agreement, nothing.compared, nothing.differing) == (1.0, 0, 0)
    assert nothing.sentence("torch bf16") == (
        "torch bf16 and torch fp32 find no nuclei on 2 sampled tiles, which says nothing"
    )
    assert detection_agreement(_found([(0, 0, 0.9)]), _found([])).class_agreement == 0.0


def test_nan_never_agrees() -> None:
    both = _found([(np.nan, 0, 0.9)], [(0, 0, 0.9)])
    found = detection_agreement(both, both)
    assert (found.not_finite, found.largest_probability_difference) == (1, 1.0)
    with pytest.raises(AgreementError, match="NaN or infinite for 1 images"):
        found.require(0.0)


def test_the_sentence_and_the_floor() -> None:
    found = detection_agreement(_found([(0, 0, 0.9), (50, 0, 0.5)]), _found([(0, 0, 0.875)]))
    sentence = (
        "torch bf16 finds 1 nuclei on 1 sampled tiles, torch fp32 2; 50.0 % have a partner of their class; largest "
        "difference of a score 0.025"
    )
    assert found.sentence("torch bf16") == sentence
    with pytest.raises(
        AgreementError, match=f"{sentence}; at least 90 % are asked for, so that 0 of a sample of 2 may"
    ):
        found.require(0.9, engine="torch bf16")
    found.require(0.98, sample=50)  # one of 50 may differ


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="of the same images, at least one, but are of 1 and 2"):
        detection_agreement(_found([]), _found([], []))
