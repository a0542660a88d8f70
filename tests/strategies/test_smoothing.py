# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.smoothing import Smoothing, smoothed_rate

# One of two missed; ten of a hundred missed; a class that the validation split lacks.
OUTPUTS = PoolOutputs(ids=[], false_negatives=[1, 10, 0], positives=[2, 100, 0])


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [
        ("none", [0.5, 0.1, 0.0]),
        ("laplace", [2 / 4, 11 / 102, 1 / 2]),
        ("jeffreys", [1.5 / 3, 10.5 / 101, 0.5]),
        # r = 11.5 / 103 = 0.111650; (1 + 10 r) / 12, (10 + 10 r) / 110, r.
        ("pooled", [0.176375, 0.101059, 0.111650]),
    ],
)
def test_values_by_hand(smoothing: Smoothing, expected: list[float]) -> None:
    assert smoothed_rate(OUTPUTS, smoothing) == pytest.approx(expected, abs=1e-6)


def test_more_strength_pulls_more() -> None:
    weak, strong = (smoothed_rate(OUTPUTS, "pooled", strength=s)[0] for s in (1.0, 100.0))
    assert 0.5 > weak > strong > 11.5 / 103


def test_no_strength_is_the_plain_rate_of_measured_classes() -> None:
    outputs = PoolOutputs(ids=[], false_negatives=[1, 10], positives=[2, 100])
    assert smoothed_rate(outputs, "pooled", strength=0.0).tolist() == [0.5, 0.1]


def test_empty_validation_set() -> None:
    with pytest.raises(StrategyError, match="validation split holds no sample"):
        smoothed_rate(PoolOutputs(ids=[], false_negatives=[0], positives=[0]))
