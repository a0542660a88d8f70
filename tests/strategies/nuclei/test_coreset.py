# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def _at(*degrees: float, length: float = 1.0) -> np.ndarray:
    angle = np.radians(degrees)
    return (length * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


def test_cover_of_a_circle_by_hand() -> None:
    # Lengths do not matter, only angles: labelled at 0; 180 is farthest (2), then 90 (sqrt 2), then 60 from 90 and 0.
    features = np.concatenate([_at(10), _at(180, length=5), _at(90, length=0.1), _at(60, length=40)])
    outputs = PoolOutputs(ids=[1, 2, 3, 4], features=features, labelled_features=_at(0, length=9))
    selection = get_strategy("coreset", "nuclei").select(outputs, 3, np.random.default_rng(0))
    assert selection.ids.tolist() == [2, 3, 4]
    chord = 2 * np.sin(np.radians(15))
    assert selection.scores.tolist() == pytest.approx([2, np.sqrt(2), chord], abs=1e-3)
    assert selection.reasons[0] == "pick 1 of 3: distance 2 to the nearest labelled or picked image"
    scores = get_strategy("coreset", "nuclei").score(outputs)
    expected = [2 * np.sin(np.radians(5)), 2, np.sqrt(2), 1]
    assert scores == pytest.approx(expected, abs=1e-3)


def test_nothing_labelled_and_a_row_of_zeros() -> None:
    features = np.concatenate([_at(0, 180), np.zeros((1, 2), dtype=np.float32)])
    for labelled in (None, np.empty((0, 2), dtype=np.float32)):
        outputs = PoolOutputs(ids=[1, 2, 3], features=features, labelled_features=labelled)
        # The mean is 0, where the row of zeros is.
        selection = get_strategy("coreset", "nuclei").select(outputs, 1, np.random.default_rng(0))
        assert selection.ids.tolist() == [3]


def test_features_are_left_as_they_were() -> None:
    features = _at(0, 90, length=3)
    get_strategy("coreset", "nuclei").select(PoolOutputs(ids=[1, 2], features=features), 1, np.random.default_rng(0))
    assert features.tolist() == _at(0, 90, length=3).tolist()
