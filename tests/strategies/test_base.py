# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import EmptyPoolError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def test_take_keeps_what_belongs_to_classes() -> None:
    outputs = PoolOutputs(ids=[5, 6, 7], pool_classes=[0, 1, 1], positives=[3, 4], class_names=("a", "b"))
    taken = outputs.take(np.array([2, 0]))
    assert taken.ids.tolist() == [7, 5]
    assert taken.pool_classes is not None
    assert taken.pool_classes.tolist() == [1, 0]
    assert taken.class_names == ("a", "b")
    assert taken.n_classes == 2


def test_number_of_classes_from_pool_classes_alone() -> None:
    assert PoolOutputs(ids=[1, 2], pool_classes=[0, 3]).n_classes == 4


def test_number_of_classes_unknown() -> None:
    with pytest.raises(StrategyError, match="number of classes is unknown"):
        _ = PoolOutputs(ids=[1]).n_classes


def test_class_names_have_a_fallback() -> None:
    assert PoolOutputs(ids=[1]).class_name(2) == "class 2"
    assert PoolOutputs(ids=[1], class_names=("Blood",)).class_name(0) == "Blood"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ids": [1, 1]}, "ids must be unique"),
        ({"ids": [1.5]}, "ids must hold whole numbers"),
        ({"ids": [[1]]}, "ids must have 1 dimensions"),
        ({"ids": [1, 2], "pool_classes": [0]}, "pool_classes has 1 rows for 2 ids"),
        ({"ids": [1], "probabilities": [[0.5, 0.5]], "positives": [1]}, "disagree on the number of classes"),
        ({"ids": [1], "probabilities": [1.0]}, "probabilities must have 2 dimensions"),
        ({"ids": [1], "probabilities": [[1, 0]]}, "must hold floating point numbers"),
        ({"ids": [1], "features": [[1.0]], "labelled_features": [[1.0, 2.0]]}, "features have width 1"),
        ({"ids": [1], "pool_classes": [-1]}, "leave samples of unknown class out"),
        ({"ids": [1], "pool_classes": [2], "positives": [1, 1]}, "but the class indices are 0 to 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        PoolOutputs(**fields)  # type: ignore[arg-type]


def test_logits_are_told_from_probabilities() -> None:
    outputs = PoolOutputs(ids=[1], probabilities=[[3.0, -1.0]])
    with pytest.raises(StrategyError, match="apply softmax to the logits first"):
        get_strategy("uncertainty").score(outputs)


def test_half_precision_softmax_passes() -> None:
    p = np.full((1, 6), 1 / 6, dtype=np.float16)
    assert get_strategy("uncertainty").score(PoolOutputs(ids=[1], probabilities=p)) == pytest.approx(
        np.log(6), abs=1e-3
    )


def test_negative_counts_are_refused() -> None:
    outputs = PoolOutputs(ids=[1], pool_classes=[0], false_negatives=[-1], positives=[3])
    with pytest.raises(StrategyError, match="'false_negatives' must not be negative"):
        get_strategy("tri_al_iter").score(outputs)


def test_array_names_what_brings_a_missing_field() -> None:
    with pytest.raises(StrategyError, match=r"'pool_classes' is needed.*oracle 'class_request'"):
        PoolOutputs(ids=[1]).array("pool_classes")


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_n_must_be_a_positive_whole_number(n: object) -> None:
    with pytest.raises(StrategyError, match="n must be a whole number of at least 1"):
        get_strategy("random").select(PoolOutputs(ids=[1]), n, np.random.default_rng(0))  # type: ignore[arg-type]


def test_empty_pool() -> None:
    empty = PoolOutputs(ids=np.empty(0, dtype=np.int64))
    with pytest.raises(EmptyPoolError, match="nothing is left in the pool"):
        get_strategy("random").select(empty, 1, np.random.default_rng(0))
    with pytest.raises(EmptyPoolError, match="nothing is left in the pool"):
        get_strategy("random").score(empty)


def test_an_empty_list_of_ids_is_an_empty_pool() -> None:
    with pytest.raises(EmptyPoolError):
        get_strategy("random").score(PoolOutputs(ids=[]))
