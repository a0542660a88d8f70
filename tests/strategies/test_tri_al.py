# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def _outputs(*, left: tuple[int, ...] = (100, 100), fn: tuple[int, ...] = (1, 3)) -> PoolOutputs:
    classes = np.repeat(np.arange(len(left)), left)
    return PoolOutputs(
        ids=np.arange(len(classes)) + 1000,
        pool_classes=classes,
        false_negatives=fn,
        positives=(10,) * len(fn),
        class_names=("Blood", "Stroma"),
    )


def test_iter_asks_by_false_negative_rate() -> None:
    # FNR 0.1 and 0.3 of 20: 5 of blood, 15 of stroma.
    selection = get_strategy("tri_al_iter").select(_outputs(), 20, np.random.default_rng(0))
    assert np.bincount(selection.class_asked).tolist() == [5, 15]
    # The first 100 ids are blood.
    assert ((selection.ids >= 1100) == (selection.class_asked == 1)).all()
    assert set(selection.reasons) == {"FNR of Blood is 0.10: 5 of 20 asked", "FNR of Stroma is 0.30: 15 of 20 asked"}
    assert selection.scores.tolist() == [0.1 if c == 0 else 0.3 for c in selection.class_asked]
    assert selection.stop is None


def test_rates_not_counts_on_an_unbalanced_validation_set() -> None:
    # 5 of 10 and 10 of 100 missed: rates 0.5 and 0.1, so 10 of 12 go to the first class although it has fewer misses.
    outputs = PoolOutputs(ids=np.arange(60), pool_classes=[0, 1] * 30, false_negatives=[5, 10], positives=[10, 100])
    count = np.bincount(get_strategy("tri_al_iter").select(outputs, 12, np.random.default_rng(0)).class_asked)
    assert count.tolist() == [10, 2]
    released = get_strategy("tri_al_iter", quirks="released").select(outputs, 12, np.random.default_rng(0))
    assert np.bincount(released.class_asked).tolist() == [4, 8]


def test_every_prefix_holds_the_mix_that_was_asked() -> None:
    asked = get_strategy("tri_al_iter").select(_outputs(), 20, np.random.default_rng(0)).class_asked
    for k in range(1, 21):
        assert abs((asked[:k] == 1).sum() - 0.75 * k) <= 1


def test_draw_within_a_class_is_random() -> None:
    strategy = get_strategy("tri_al_iter")
    first, second = (strategy.select(_outputs(), 20, np.random.default_rng(seed)).ids for seed in (0, 1))
    assert set(first.tolist()) != set(second.tolist())


def test_iter_passes_the_share_of_an_exhausted_class_on() -> None:
    selection = get_strategy("tri_al_iter").select(_outputs(left=(2, 100)), 20, np.random.default_rng(0))
    assert np.bincount(selection.class_asked).tolist() == [2, 18]


def test_ood_stops_at_the_first_short_class() -> None:
    selection = get_strategy("tri_al_ood").select(_outputs(left=(2, 100)), 20, np.random.default_rng(0))
    assert len(selection) == 0
    assert selection.stop == "the pool of Blood holds 2 of 5 samples asked for"


def test_ood_stops_when_the_whole_pool_is_smaller_than_the_query() -> None:
    selection = get_strategy("tri_al_ood").select(_outputs(left=(5, 15)), 24, np.random.default_rng(0))
    assert selection.stop == (
        "the pool of Blood holds 5 of 6 samples asked for; the pool of Stroma holds 15 of 18 samples asked for"
    )


def test_ood_draws_while_the_pools_last() -> None:
    selection = get_strategy("tri_al_ood").select(_outputs(left=(5, 15)), 20, np.random.default_rng(0))
    assert sorted(selection.ids.tolist()) == list(range(1000, 1020))


def test_released_draws_from_the_head_of_the_pool_in_row_order() -> None:
    outputs = PoolOutputs(
        ids=[9, 4, 7, 1, 3, 8], pool_classes=[0, 1, 0, 1, 0, 1], false_negatives=[1, 1], positives=[2, 2]
    )
    selection = get_strategy("tri_al_iter", quirks="released").select(outputs, 4, np.random.default_rng(0))
    assert selection.ids.tolist() == [9, 4, 7, 1]


def test_a_class_outside_of_the_validation_set_is_not_asked_for() -> None:
    outputs = PoolOutputs(
        ids=np.arange(30), pool_classes=np.arange(30) % 3, false_negatives=[0, 0, 0], positives=[0, 5, 5]
    )
    asked = get_strategy("tri_al_iter").select(outputs, 10, np.random.default_rng(0)).class_asked
    assert np.bincount(asked, minlength=3).tolist() == [0, 5, 5]


def test_request_needs_no_pool() -> None:
    advice = PoolOutputs(ids=[], false_negatives=[1, 3], positives=[10, 10])
    assert get_strategy("tri_al_iter").request(advice, 100).counts.tolist() == [25, 75]  # type: ignore[attr-defined]


def test_score_is_the_rate_of_the_true_class() -> None:
    scores = get_strategy("tri_al_iter").score(_outputs(left=(1, 2)))
    assert scores.tolist() == [0.1, 0.3, 0.3]


def test_more_misses_than_samples() -> None:
    with pytest.raises(StrategyError, match="Stroma has 11 false negatives among 10 validation samples"):
        get_strategy("tri_al_iter").score(_outputs(fn=(0, 11)))


def test_empty_validation_set() -> None:
    outputs = PoolOutputs(ids=[1], pool_classes=[0], false_negatives=[0], positives=[0])
    with pytest.raises(StrategyError, match="validation split holds no sample"):
        get_strategy("tri_al_iter").score(outputs)


@pytest.mark.parametrize("name", ["tri_al_iter", "tri_al_ood"])
def test_unknown_quirks(name: str) -> None:
    with pytest.raises(ConfigError, match="quirks must be one of"):
        get_strategy(name, quirks="paper")
