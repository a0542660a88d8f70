# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def test_covers_away_from_what_is_labelled() -> None:
    outputs = PoolOutputs(
        ids=[10, 11, 12, 13, 14], features=np.array([[1.0], [2], [9], [10], [5]]), labelled_features=np.array([[0.0]])
    )
    strategy = get_strategy("kcenter")
    selection = strategy.select(outputs, 3, np.random.default_rng(0))
    assert selection.ids.tolist() == [13, 14, 11]
    assert selection.scores.tolist() == pytest.approx([10, 5, 2], abs=1e-5)
    assert selection.reasons[1] == "distance 5 to the nearest labelled or chosen sample"
    assert strategy.score(outputs).tolist() == pytest.approx([1, 2, 9, 10, 5], abs=1e-5)


@pytest.mark.parametrize("labelled", [None, np.empty((0, 1))])
def test_nothing_labelled_starts_at_the_middle(labelled: np.ndarray | None) -> None:
    outputs = PoolOutputs(ids=[1, 2, 3], features=np.array([[-5.0], [-0.5], [5.5]]), labelled_features=labelled)
    selection = get_strategy("kcenter").select(outputs, 2, np.random.default_rng(0))
    assert selection.ids.tolist() == [2, 3]
