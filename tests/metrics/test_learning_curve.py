# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tral_monai.errors import ConfigError
from tral_monai.metrics.learning_curve import area_under_learning_curve


def test_by_hand_with_unequal_steps() -> None:
    # (0.5 + 0.7) / 2 * 100 + (0.7 + 0.8) / 2 * 300 = 60 + 225 over 400.
    assert area_under_learning_curve([100, 200, 500], [0.5, 0.7, 0.8]) == pytest.approx(285 / 400)


def test_part_of_the_curve() -> None:
    # At 150: 0.6, at 350: 0.75. (0.6 + 0.7) / 2 * 50 + (0.7 + 0.75) / 2 * 150 = 32.5 + 108.75 over 200.
    area = area_under_learning_curve([100, 200, 500], [0.5, 0.7, 0.8], cost_range=(150, 350))
    assert area == pytest.approx(141.25 / 200)


def test_the_whole_range_changes_nothing() -> None:
    x, y = [1, 2, 7], [0.1, 0.5, 0.4]
    assert area_under_learning_curve(x, y, cost_range=(1, 7)) == area_under_learning_curve(x, y)


def test_a_point_on_a_straight_line_changes_nothing() -> None:
    assert area_under_learning_curve([0, 10], [0, 1]) == area_under_learning_curve([0, 3, 10], [0, 0.3, 1])


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.floats(0, 1))
def test_a_constant_score_gives_itself(steps: list[float], score: float) -> None:
    cost = np.concatenate([[0.0], np.cumsum(steps)])
    assert area_under_learning_curve(cost, np.full(len(cost), score)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("x", "y", "cost_range", "message"),
    [
        ([1], [1], None, "needs two points or more, but has 1 costs and 1 scores"),
        ([1, 2], [1], None, "has 2 costs and 1 scores"),
        ([1, 2], [1, np.nan], None, "must be finite"),
        ([1, 1], [1, 2], None, "Costs must rise"),
        ([1, 2], [1, 2], (0, 2), r"cost_range \(0, 2\) must lie within the curve's 1 to 2"),
        ([1, 2], [1, 2], (2, 1), "cost_range"),
    ],
)
def test_bad_curves(x: list[float], y: list[float], cost_range: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        area_under_learning_curve(x, y, cost_range=cost_range)
