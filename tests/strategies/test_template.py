# SPDX-License-Identifier: Apache-2.0
"""What every registered strategy promises, whatever it scores; a new one is tested here without being named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tral_monai.errors import EmptyPoolError, StrategyError
from tral_monai.strategies.base import PoolOutputs, Strategy
from tral_monai.strategies.registry import get_strategy, strategy_names

N, C, D = 60, 4, 8
FIELDS = [f.name for f in dataclasses.fields(PoolOutputs) if f.name not in ("ids", "class_names")]

VARIANTS: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in strategy_names("tissue")),
    ("uncertainty", {"measure": "margin"}),
    ("uncertainty", {"measure": "least_confidence"}),
    ("tri_al_entropy", {"candidates": "uniform"}),
    ("tri_al_entropy", {"candidates": "all"}),
    ("balanced", {"by": "predicted"}),
    ("clue", {"temperature": 2.0}),
    ("tri_al_quota", {"diversity": "clue"}),
    ("tri_al_quota", {"diversity": "kcenter"}),
    ("tri_al_quota", {"smoothing": "none"}),
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}".rstrip("-") for name, options in VARIANTS]


def full_outputs(seed: int = 0) -> PoolOutputs:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(C, 0.5), size=N)
    centres = rng.normal(size=(C, D)) * 3
    return PoolOutputs(
        ids=rng.permutation(1000)[:N],
        probabilities=probabilities,
        features=(centres[probabilities.argmax(axis=1)] + rng.normal(size=(N, D))).astype(np.float32),
        pool_classes=rng.integers(0, C, size=N),
        false_negatives=[3, 0, 6, 1],
        positives=[20, 20, 20, 5],
        labelled_counts=[4, 4, 4, 4],
        class_distribution=[40, 10, 30, 20],
        labelled_features=rng.normal(size=(16, D)).astype(np.float32),
        class_names=("Blood", "Muscle", "Stroma", "Urothelium"),
    )


@pytest.fixture(params=VARIANTS, ids=IDS)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    name, options = request.param
    return get_strategy(name, **options)


def test_every_variant_is_distinct() -> None:
    assert len(set(IDS)) == len(IDS)


def test_needs_and_wants_name_fields(strategy: Strategy) -> None:
    assert strategy.needs <= set(FIELDS)
    assert strategy.wants <= set(FIELDS)
    assert not strategy.needs & strategy.wants


@pytest.mark.parametrize("n", [1, 7, 25, N - 1, N, 10 * N])
def test_choice_is_unique_from_the_pool_and_complete(strategy: Strategy, n: int) -> None:
    outputs = full_outputs()
    selection = strategy.select(outputs, n, np.random.default_rng(1))
    k = len(selection)
    if strategy.name == "tri_al_ood" and selection.stop is not None:
        assert k == 0
        assert n > 1
    else:
        assert k == min(n, N)
        assert selection.stop is None
    assert len(set(selection.ids.tolist())) == k
    assert set(selection.ids.tolist()) <= set(outputs.ids.tolist())
    assert selection.ids.dtype == np.int64
    assert selection.scores.shape == (k,)
    assert selection.scores.dtype == np.float64
    assert np.isfinite(selection.scores).all()
    assert selection.class_asked.shape == (k,)
    assert ((selection.class_asked >= -1) & (selection.class_asked < C)).all()
    assert len(selection.reasons) == k
    assert all(selection.reasons)


def test_same_seed_same_choice_in_any_row_order(strategy: Strategy) -> None:
    outputs = full_outputs()
    shuffled = outputs.take(np.random.default_rng(7).permutation(N))
    first = strategy.select(outputs, 12, np.random.default_rng(3))
    for other in (outputs, shuffled):
        again = strategy.select(other, 12, np.random.default_rng(3))
        assert again.ids.tolist() == first.ids.tolist()
        assert again.scores.tolist() == first.scores.tolist()
        assert again.class_asked.tolist() == first.class_asked.tolist()
        assert again.reasons == first.reasons


def test_scores_follow_the_rows(strategy: Strategy) -> None:
    outputs = full_outputs()
    scores = strategy.score(outputs)
    assert scores.shape == (N,)
    assert scores.dtype == np.float64
    order = np.random.default_rng(7).permutation(N)
    np.testing.assert_allclose(strategy.score(outputs.take(order)), scores[order], rtol=1e-5)


def test_inputs_are_left_alone(strategy: Strategy) -> None:
    outputs, before = full_outputs(), full_outputs()
    strategy.select(outputs, 12, np.random.default_rng(0))
    for field in ("ids", *FIELDS):
        np.testing.assert_array_equal(getattr(outputs, field), getattr(before, field))


def test_what_is_needed_is_enough(strategy: Strategy) -> None:
    outputs = full_outputs()
    unused = {field: None for field in FIELDS if field not in strategy.needs}
    bare = dataclasses.replace(outputs, **unused)  # type: ignore[arg-type]
    assert len(strategy.select(bare, 5, np.random.default_rng(0))) == 5


def test_fields_that_are_not_named_do_not_matter(strategy: Strategy) -> None:
    outputs = full_outputs()
    unused = {field: None for field in FIELDS if field not in strategy.needs | strategy.wants}
    lean = dataclasses.replace(outputs, **unused)  # type: ignore[arg-type]
    chosen = [strategy.select(o, 9, np.random.default_rng(0)).ids.tolist() for o in (outputs, lean)]
    assert chosen[0] == chosen[1]


def test_a_missing_need_is_named(strategy: Strategy) -> None:
    for field in strategy.needs:
        lacking = dataclasses.replace(full_outputs(), **{field: None})  # type: ignore[arg-type]
        with pytest.raises(StrategyError, match=f"{strategy.name} needs '{field}', but it is missing. It is brought"):
            strategy.select(lacking, 5, np.random.default_rng(0))
        with pytest.raises(StrategyError, match=f"needs '{field}'"):
            strategy.score(lacking)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_raises(strategy: Strategy, value: float) -> None:
    for field in (strategy.needs | strategy.wants) - {"pool_classes"}:
        outputs = full_outputs()
        broken = np.array(getattr(outputs, field), dtype=np.float64)
        broken.flat[1] = value
        broken_outputs = dataclasses.replace(outputs, **{field: broken})  # type: ignore[arg-type]
        with pytest.raises(StrategyError, match=f"'{field}' must be finite, but 1 of"):
            strategy.select(broken_outputs, 5, np.random.default_rng(0))


@pytest.mark.parametrize("n", [0, -3])
def test_n_below_one_raises(strategy: Strategy, n: int) -> None:
    with pytest.raises(StrategyError, match=f"n must be a whole number of at least 1 sample, but is {n}"):
        strategy.select(full_outputs(), n, np.random.default_rng(0))


def test_an_empty_pool_raises(strategy: Strategy) -> None:
    empty = full_outputs().take(np.empty(0, dtype=np.int64))
    with pytest.raises(EmptyPoolError, match="nothing is left in the pool"):
        strategy.select(empty, 5, np.random.default_rng(0))


def test_a_pool_of_one(strategy: Strategy) -> None:
    one = full_outputs().take(np.array([4]))
    selection = strategy.select(one, 1, np.random.default_rng(0))
    assert selection.ids.tolist() in ([one.ids[0]], [])
    assert (len(selection) == 0) == (selection.stop is not None)


def test_each_class_says_where_it_comes_from(strategy: Strategy) -> None:
    doc = type(strategy).__doc__ or ""
    assert "Source:" in doc or "same source" in doc
