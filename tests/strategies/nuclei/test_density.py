# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.errors import ConfigError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def _pool(labelled_unknown: int = 10) -> PoolOutputs:
    near, far = [1.0, 2.0], [2.0, 1.0]
    return PoolOutputs(
        ids=[1, 2, 3],
        detections=boxes([1, 3, 0]),
        auxiliary_detections=boxes([2, 4, 0], prototype_distances=[near, near, near, far, far, far]),
        labelled_unknown=labelled_unknown,
    )


def test_total_count() -> None:
    assert get_strategy("density").score(_pool()).tolist() == [1, 3, 0]
    selection = get_strategy("density").select(_pool(), 2, np.random.default_rng(0))
    assert selection.ids.tolist() == [2, 1]
    assert selection.reasons == ("3 nuclei found, rank 1 of 3", "1 nucleus found, rank 2 of 3")
    assert get_strategy("density").auxiliary is None


def test_nuclei_of_uncertain_class_are_not_counted_for_each_class_that_they_may_be() -> None:
    # Image 1: one nucleus with three boxes. Image 2: two nuclei with one box each.
    unsure, sure = [0.1, 0.3, 0.31, 0.29], [0.1, 0.8, 0.05, 0.05]
    found = boxes([3, 2], labels=[0, 1, 2, 0, 0], probabilities=[unsure] * 3 + [sure] * 2)
    assert get_strategy("density").score(PoolOutputs(ids=[1, 2], detections=found)).tolist() == [1, 2]


def test_known_fraction() -> None:
    strategy = get_strategy("density", of="known_fraction")
    assert strategy.score(_pool()).tolist() == [1, 0.25, 0]
    assert strategy.select(_pool(), 1, np.random.default_rng(0)).reasons == ("2 of 2 nuclei known (100%), rank 1 of 3",)
    assert strategy.auxiliary == "prototype"


def test_known_fraction_at_a_cold_start() -> None:
    selection = get_strategy("density", of="known_fraction").select(_pool(3), 1, np.random.default_rng(0))
    assert selection.ids.tolist() == [2]
    assert selection.reasons[0] == (
        "cold start, density instead of known nuclei: 3 unknown nuclei labelled, fewer than 10; 4 nuclei found, "
        "rank 1 of 3"
    )


def test_bad_option() -> None:
    with pytest.raises(ConfigError, match="density: of must be one of"):
        get_strategy("density", of="known")
