# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy

# Entropies ln 2, ln 4 and 0; the last box is below the minimum score.
P = [[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]]
POOL = PoolOutputs(ids=[7, 8, 9], detections=boxes([2, 0, 2], probabilities=np.array(P), scores=[0.5, 0.3, 1.0, 0.01]))


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("mean", [1.5 * np.log(2), 0, 0]), ("sum", [3 * np.log(2), 0, 0]), ("max", [2 * np.log(2), 0, 0])],
)
def test_entropy_by_hand(aggregate: str, expected: list[float]) -> None:
    assert get_strategy("uncertainty", "nuclei", aggregate=aggregate).score(POOL) == pytest.approx(expected)


def test_other_measures_by_hand() -> None:
    assert get_strategy("uncertainty", "nuclei", measure="margin").score(POOL) == pytest.approx([1, 0, 0])
    least = get_strategy("uncertainty", "nuclei", measure="least_confidence")
    assert least.score(POOL) == pytest.approx([0.625, 0, 0])


def test_reason() -> None:
    selection = get_strategy("uncertainty", "nuclei").select(POOL, 1, np.random.default_rng(0))
    assert selection.ids.tolist() == [7]
    assert selection.reasons == ("mean entropy 1.040 over 2 nuclei, rank 1 of 3",)


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="uncertainty: aggregate must be one of"):
        get_strategy("uncertainty", "nuclei", aggregate="median")
    with pytest.raises(ConfigError, match="uncertainty: measure must be one of"):
        get_strategy("uncertainty", "nuclei", measure="variance")


def test_logits_are_told_from_probabilities() -> None:
    outputs = PoolOutputs(ids=[1], detections=boxes([1], probabilities=[[3.0, -1.0]]))
    with pytest.raises(StrategyError, match=r"'detections\.probabilities' must be softmax outputs"):
        get_strategy("uncertainty", "nuclei").score(outputs)
