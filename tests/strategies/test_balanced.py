# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def test_equal_numbers_of_true_classes() -> None:
    outputs = PoolOutputs(ids=np.arange(110), pool_classes=np.repeat([0, 1], [10, 100]), class_names=("Blood", "Fat"))
    selection = get_strategy("balanced").select(outputs, 12, np.random.default_rng(0))
    assert np.bincount(selection.class_asked).tolist() == [6, 6]
    assert set(selection.reasons) == {"equal shares: 6 of 12 asked Blood", "equal shares: 6 of 12 asked Fat"}


def test_a_short_class_leaves_its_share_to_the_others() -> None:
    outputs = PoolOutputs(ids=np.arange(62), pool_classes=np.repeat([0, 1, 2], [2, 30, 30]))
    selection = get_strategy("balanced").select(outputs, 12, np.random.default_rng(0))
    assert np.bincount(selection.class_asked).tolist() == [2, 5, 5]


def test_a_class_that_is_only_an_output_of_the_network_takes_no_share() -> None:
    outputs = PoolOutputs(ids=np.arange(20), pool_classes=np.repeat([1, 2], 10), class_names=("Background", "a", "b"))
    request = get_strategy("balanced").request(outputs, 10)  # type: ignore[attr-defined]
    assert request.counts.tolist() == [0, 5, 5]


def test_by_predicted_class() -> None:
    p = np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]] * 30)
    outputs = PoolOutputs(ids=np.arange(33), probabilities=p)
    selection = get_strategy("balanced", by="predicted").select(outputs, 6, np.random.default_rng(0))
    assert set(selection.ids[selection.class_asked == 0].tolist()) == {0, 1, 2}
    assert (selection.class_asked == 1).sum() == 3
    assert "3 of 6 predicted class 1" in selection.reasons[-1]


def test_unknown_option_value() -> None:
    with pytest.raises(ConfigError, match="by must be one of"):
        get_strategy("balanced", by="class")
