# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.clue import Clue
from tral_monai.strategies.registry import get_strategy


def _outputs() -> PoolOutputs:
    # Certain samples around 0, uncertain ones around 10 and 20.
    x = np.concatenate([np.linspace(-0.5, 0.5, 40), np.linspace(9.9, 10.1, 5), np.linspace(19.9, 20.1, 5)])
    p = np.concatenate([np.full(40, 1.0), np.full(5, 0.6), np.full(5, 0.5)])
    return PoolOutputs(ids=np.arange(50), probabilities=np.stack([p, 1 - p], axis=1), features=x[:, None])


def test_one_sample_from_each_uncertain_cluster() -> None:
    selection = get_strategy("clue").select(_outputs(), 2, np.random.default_rng(0))
    # The middles of the two uncertain groups; the one at 20 is the more uncertain.
    assert selection.ids.tolist() == [47, 42]
    assert selection.scores.tolist() == pytest.approx([0.6931, 0.6730], abs=1e-4)
    assert "one of 2 uncertain clusters" in selection.reasons[0]


def test_temperature_by_hand() -> None:
    # sqrt(0.8) : sqrt(0.2) = 2 : 1 at temperature 2; H(2/3, 1/3) = 0.6365.
    outputs = PoolOutputs(ids=[1], probabilities=[[0.8, 0.2]], features=[[0.0]])
    assert Clue(temperature=2).score(outputs) == pytest.approx([0.636514], abs=1e-6)


def test_a_low_temperature_does_not_underflow() -> None:
    outputs = PoolOutputs(ids=[1], probabilities=np.full((1, 100), 0.01), features=[[0.0]])
    assert Clue(temperature=0.001).score(outputs) == pytest.approx([np.log(100)])


@pytest.mark.parametrize("temperature", [0, -1, "warm"])
def test_bad_temperature(temperature: object) -> None:
    with pytest.raises(ConfigError, match="temperature must"):
        get_strategy("clue", temperature=temperature)
