# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy
from tral_monai.strategies.uncertainty import Measure, top, uncertainty

# Certain; two-way tie; three-way tie; leaning.
P = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1]])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("entropy", [0.0, math.log(2), math.log(3), 0.8979457]),
        ("margin", [0.0, 1.0, 1.0, 0.7]),
        ("least_confidence", [0.0, 0.5, 2 / 3, 0.4]),
    ],
)
def test_values_by_hand(measure: Measure, expected: list[float]) -> None:
    np.testing.assert_allclose(uncertainty(P, measure), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("measure", "ranking"), [("entropy", [12, 13, 11, 10]), ("least_confidence", [12, 11, 13, 10])]
)
def test_ranking(measure: str, ranking: list[int]) -> None:
    strategy = get_strategy("uncertainty", measure=measure)
    outputs = PoolOutputs(ids=[10, 11, 12, 13], probabilities=P)
    assert strategy.select(outputs, 4, np.random.default_rng(0)).ids.tolist() == ranking


def test_reasons_tell_measure_and_rank() -> None:
    outputs = PoolOutputs(ids=[10, 11, 12, 13], probabilities=P)
    selection = get_strategy("uncertainty", measure="least_confidence").select(outputs, 2, np.random.default_rng(0))
    assert selection.reasons == ("least confidence 0.667, rank 1 of 4", "least confidence 0.500, rank 2 of 4")
    assert selection.class_asked.tolist() == [-1, -1]


def test_equal_scores_are_drawn_by_the_generator() -> None:
    drawn = {tuple(top(np.zeros(5), 2, np.random.default_rng(seed)).tolist()) for seed in range(40)}
    assert len(drawn) > 10


def test_margin_of_one_class() -> None:
    with pytest.raises(StrategyError, match="margin needs at least two classes"):
        uncertainty(np.ones((2, 1)), "margin")


def test_unknown_measure() -> None:
    with pytest.raises(ConfigError, match="measure must be one of .*but is 'bald'"):
        get_strategy("uncertainty", measure="bald")
