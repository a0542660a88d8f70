# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.errors import ConfigError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.nuclei.laal import place_in_image
from tral_monai.strategies.registry import get_strategy

SQUARE, HALF = [0.0, 0, 10, 10], [0.0, 0, 10, 5]


def test_tightness_by_hand() -> None:
    found = boxes(
        [2, 0, 1],
        boxes_px=[SQUARE, SQUARE, SQUARE],
        proposals_px=[SQUARE, HALF, SQUARE],
        probabilities=[[0.3, 0.7, 0], [0.1, 0.3, 0.6], [0.5, 0.25, 0.25]],
    )
    outputs = PoolOutputs(ids=[1, 2, 3], detections=found)
    # |1 + 0.7 - 1| = 0.7 and |0.5 + 0.6 - 1| = 0.1, the lower; no box: 1; |1 + 0.25 - 1| = 0.25.
    strategy = get_strategy("laal")
    assert strategy.score(outputs) == pytest.approx([-0.1, -1, -0.25])
    selection = strategy.select(outputs, 3, np.random.default_rng(0))
    assert selection.ids.tolist() == [1, 3, 2]
    assert selection.reasons[0] == "lowest |tightness + class score - 1| 0.100 over 2 nuclei, rank 1 of 3"


def _stability_pool() -> PoolOutputs:
    far = [80.0, 80, 90, 90]
    found = boxes(
        [2, 0, 1], boxes_px=[SQUARE, far, SQUARE], probabilities=[[0.2, 0.8, 0], [0.6, 0.2, 0.2], [0.5, 0.5, 0]]
    )
    p = [0.0, 1, 0]
    noisy = (
        boxes([2, 0, 1], boxes_px=[far, HALF, SQUARE], probabilities=[p, p, p]),
        boxes([1, 1, 0], boxes_px=[SQUARE, SQUARE], probabilities=[p, p]),
    )
    return PoolOutputs(ids=[1, 2, 3], detections=found, noise_detections=noisy)


def test_stability_by_hand() -> None:
    # Image 1: box 1 (Pm 0.8) is found again by 0.5 and 1: S 0.75; box 2 (Pm 0.2) by 1 and 0: S 0.5.
    # S_I = (0.8 * 0.75 + 0.2 * 0.5) / 1 = 0.7; U_C = max(0.2, 0.8) = 0.8. Image 2 has no box. Image 3: S (1 + 0) / 2,
    # U_C 0.5.
    strategy = get_strategy("laal", cue="stability")
    assert strategy.score(_stability_pool()) == pytest.approx([0.1, -1, 0])
    selection = strategy.select(_stability_pool(), 1, np.random.default_rng(0))
    assert selection.reasons == ("class uncertainty 0.800, stability 0.700 over 2 nuclei, rank 1 of 3",)


def test_weight_and_most_certain_boxes() -> None:
    assert get_strategy("laal", cue="stability", weight=2.0).score(_stability_pool()) == pytest.approx([-0.6, -2, -0.5])
    # With one box per image, that of Pm 0.8: U_C 0.2, S_I 0.75.
    one = get_strategy("laal", cue="stability", max_boxes=1)
    assert one.score(_stability_pool()) == pytest.approx([-0.55, -1, 0])


def test_unsure_and_unstable_images_come_first() -> None:
    # The original's sign, which OSAL-ND's phrase "highest stability" would turn round.
    found = boxes([1, 1], boxes_px=[SQUARE, SQUARE], probabilities=[[0.1, 0.9], [0.1, 0.9]])
    noisy = boxes([1, 1], boxes_px=[SQUARE, HALF])
    outputs = PoolOutputs(ids=[1, 2], detections=found, noise_detections=(noisy,))
    assert get_strategy("laal", cue="stability").select(outputs, 1, np.random.default_rng(0)).ids.tolist() == [2]


def test_place_in_image() -> None:
    assert place_in_image(boxes([3, 0, 2]), np.array([0.1, 0.9, 0.5, 0.7, 0.7])).tolist() == [2, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cue": "both"}, "laal: cue must be one of"),
        ({"weight": -1}, "laal: weight must lie between"),
        ({"max_boxes": 0}, "laal: max_boxes must be a whole number"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_strategy("laal", **options)
