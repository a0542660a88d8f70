# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tests.strategies.nuclei.outputs import boxes
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.nuclei.lfosa import higher_component, known_probability
from tral_monai.strategies.registry import get_strategy


def test_two_clear_components() -> None:
    assert higher_component(np.array([0.0, 10.0, 0.1, 10.1])) == pytest.approx([0, 1, 0, 1], abs=1e-6)


def test_mixture_against_its_definition() -> None:
    # Components far enough apart that ten iterations find them: the posterior, worked out from the densities.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 20_000), rng.normal(6, 1, 10_000)])
    posterior = higher_component(values)
    for at in (2.5, 3.0, 3.1, 3.5):
        row = np.argmin(np.abs(values - at))
        high, low = norm.pdf(values[row], 6, 1) / 3, norm.pdf(values[row], 0, 1) * 2 / 3
        assert posterior[row] == pytest.approx(high / (high + low), abs=0.03)


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0, 3.0]])
def test_fewer_than_two_different_activations_count_nothing(values: list[float]) -> None:
    assert higher_component(np.array(values)).tolist() == [0] * len(values)


def _found() -> object:
    # Classes 0 and 1 are known, 2 is unknown. Class 0: activations 0, 0.1, 10, 10.1. Class 1: a single nucleus.
    activations = [0.0, 10, 0.1, 10.1, 8, 9]
    labels = [0, 0, 0, 0, 1, 2]
    logits = np.full((6, 3), -5.0)
    logits[np.arange(6), labels] = activations
    return boxes([3, 0, 3], labels=labels, logits=logits)


def test_probability_of_known_by_hand() -> None:
    # Of class 0 the two high ones; class 1 has too few samples; predicted unknown counts 0.
    assert known_probability(_found()) == pytest.approx([0, 1, 0, 1, 0, 0], abs=1e-6)  # type: ignore[arg-type]


def test_a_nucleus_that_is_likelier_unknown_counts_nothing_by_its_second_class() -> None:
    # Two nuclei of class 0, then one that is rather unknown but also has a box of class 0.
    logits = [[9.0, 0, 0], [0.0, -5, -5], [8.0, 0, 9.0]]
    probabilities = np.exp(np.hstack([np.zeros((3, 1)), logits]))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = boxes([1, 1, 1], labels=[0, 0, 0], logits=logits, probabilities=probabilities)
    outputs = PoolOutputs(ids=[1, 2, 3], auxiliary_detections=found)
    assert get_strategy("lfosa", combine="none").score(outputs) == pytest.approx([1, 0, 0], abs=1e-6)


def test_sum_times_location_by_hand() -> None:
    target = boxes([1, 1, 1], boxes_px=[[0, 0, 10, 10]] * 3, proposals_px=[[0, 0, 10, 5], [0, 0, 10, 5], [2, 2, 8, 8]])
    outputs = PoolOutputs(ids=[1, 2, 3], detections=target, auxiliary_detections=_found())  # type: ignore[arg-type]
    # A = 1, 0, 1; LI = 0.5, 0.5, 0.64.
    assert get_strategy("lfosa").score(outputs) == pytest.approx([0.5, 0, 0.64], abs=1e-6)
    assert get_strategy("lfosa", combine="none").score(outputs) == pytest.approx([1, 0, 1], abs=1e-6)
    selection = get_strategy("lfosa").select(outputs, 1, np.random.default_rng(0))
    assert selection.ids.tolist() == [3]
    assert selection.reasons == ("1.00 known nuclei expected among 3 nuclei x location uncertainty 0.640, rank 1 of 3",)


def test_a_label_without_a_logit() -> None:
    outputs = PoolOutputs(ids=[1], auxiliary_detections=boxes([1], labels=[4], logits=[[0.0, 1.0, 2.0]]))
    with pytest.raises(
        StrategyError, match="labels of the auxiliary detections run from 4 to 4, but its logits have 3"
    ):
        get_strategy("lfosa", combine="none").score(outputs)


def test_bad_option() -> None:
    with pytest.raises(ConfigError, match="lfosa: combine must be one of"):
        get_strategy("lfosa", combine="sum")
