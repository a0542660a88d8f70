# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy
from tral_monai.strategies.tri_al_entropy import TriALEntropy


def _outputs() -> PoolOutputs:
    # Class 0 certain, class 1 uncertain; ids equal rows; uncertainty rises with the id within a class.
    p = np.concatenate([np.linspace(0.99, 0.95, 20), np.linspace(0.7, 0.51, 20)])
    return PoolOutputs(
        ids=np.arange(40),
        probabilities=np.stack([p, 1 - p], axis=1),
        pool_classes=np.repeat([0, 1], 20),
        class_distribution=[0.8, 0.2],
    )


def test_candidates_follow_the_class_distribution_of_the_training_set() -> None:
    # ratio 1.5 of 10: 15 candidates, 12 of class 0 and 3 of class 1. The 3 uncertain ones are all kept.
    strategy = TriALEntropy()
    rows = strategy.candidate_rows(_outputs(), 10, np.random.default_rng(0))
    assert np.bincount(rows // 20).tolist() == [12, 3]
    selection = strategy.select(_outputs(), 10, np.random.default_rng(0))
    assert np.bincount(selection.ids // 20).tolist() == [7, 3]
    assert (np.diff(selection.scores) <= 0).all()
    assert selection.reasons[0].endswith("rank 1 of 15 candidates")


def test_the_whole_pool_as_candidates_is_plain_entropy() -> None:
    selection = TriALEntropy(candidates="all").select(_outputs(), 10, np.random.default_rng(0))
    assert selection.ids.tolist() == list(range(39, 29, -1))


def test_uniform_candidates_need_no_true_classes() -> None:
    strategy = TriALEntropy(candidates="uniform", ratio=2)
    assert strategy.needs == {"probabilities"}
    assert len(strategy.candidate_rows(_outputs(), 10, np.random.default_rng(0))) == 20


def test_number_of_candidates_is_rounded_up_without_floating_point_noise() -> None:
    # 1.1 * 10 is 11.000000000000002 in binary.
    assert len(TriALEntropy(ratio=1.1).candidate_rows(_outputs(), 10, np.random.default_rng(0))) == 11
    assert len(TriALEntropy(ratio=1.5).candidate_rows(_outputs(), 3, np.random.default_rng(0))) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.9}, "ratio must lie between 1 and inf, but is 0.9"),
        ({"ratio": "1e0"}, r"ratio must be a number, but is '1e0' \(str\)"),
        ({"candidates": "some"}, "candidates must be one of"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_strategy("tri_al_entropy", **options)
