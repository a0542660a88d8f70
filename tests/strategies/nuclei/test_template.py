# SPDX-License-Identifier: Apache-2.0
"""What every nucleus strategy promises, whatever it scores; a new one is tested here without being named."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies.nuclei.outputs import K, generated_pool
from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError, EmptyPoolError, StrategyError
from tral_monai.strategies.base import PoolOutputs, Strategy
from tral_monai.strategies.registry import get_strategy, strategy_class, strategy_names

N = 40
FIELDS = [f.name for f in dataclasses.fields(PoolOutputs) if f.name not in ("ids", "class_names")]
MANY = ("view_detections", "noise_detections")
VARIANTS: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in strategy_names("nuclei")),
    ("uncertainty", {"measure": "margin", "aggregate": "sum"}),
    ("uncertainty", {"measure": "least_confidence", "aggregate": "max"}),
    ("laal", {"cue": "stability"}),
    ("laal", {"cue": "stability", "max_boxes": 3}),
    ("cald", {"quirks": "released"}),
    ("lfosa", {"combine": "none"}),
    ("openal", {"shrinkage": 0.0}),
    ("openal", {"clusters": 1, "fraction": 0.5, "ratio": 1.0}),
    ("osal_nd", {"min_unknown": 100}),
    ("osal_nd", {"per": "nucleus"}),
    ("pcss", {"min_unknown": 100}),
    ("density", {"of": "known_fraction"}),
    ("density", {"of": "known_fraction", "min_unknown": 100}),
]
WITHOUT_BOXES = {"random", "coreset", "ll4al"}
IDS = [f"{name}-{'-'.join(map(str, options.values()))}".rstrip("-") for name, options in VARIANTS]


def the_names() -> set[str]:
    return {
        *("random", "uncertainty", "coreset", "laal", "ll4al", "cald", "lfosa", "openal", "density"),
        *("osal_nd", "osal_nd_without_ci", "osal_nd_without_li", "utss", "pcss"),
    }


@pytest.fixture(params=VARIANTS, ids=IDS)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    name, options = request.param
    return get_strategy(name, "nuclei", **options)


def test_every_method_of_the_paper_and_the_controls_are_there() -> None:
    assert set(strategy_names("nuclei")) == the_names()
    assert len(set(IDS)) == len(IDS)


def test_needs_wants_and_columns_name_fields(strategy: Strategy) -> None:
    assert strategy.needs | strategy.wants <= set(FIELDS)
    assert not strategy.needs & strategy.wants
    assert set(strategy.columns) <= strategy.needs
    known = {f.name for f in dataclasses.fields(Detections)}
    assert all(columns <= known for columns in strategy.columns.values())
    assert strategy.task in ("nuclei", "any")
    assert (strategy.auxiliary is not None) == ("auxiliary_detections" in strategy.needs)
    assert strategy.loss_prediction == ("predicted_losses" in strategy.needs)


@pytest.mark.parametrize("n", [1, 7, 25, N - 1, N, 10 * N])
def test_choice_is_unique_from_the_pool_and_complete(strategy: Strategy, n: int) -> None:
    outputs = generated_pool(N)
    selection = strategy.select(outputs, n, np.random.default_rng(1))
    k = min(n, N)
    assert len(selection) == k
    assert selection.stop is None
    assert len(set(selection.ids.tolist())) == k
    assert set(selection.ids.tolist()) <= set(outputs.ids.tolist())
    assert selection.ids.dtype == np.int64
    assert selection.scores.shape == (k,)
    assert selection.scores.dtype == np.float64
    assert np.isfinite(selection.scores).all()
    assert (selection.class_asked == -1).all()
    assert len(selection.reasons) == k
    assert all(selection.reasons)
    assert not any("nan" in reason for reason in selection.reasons)


def test_same_seed_same_choice_in_any_row_order(strategy: Strategy) -> None:
    outputs = generated_pool(N)
    first = strategy.select(outputs, 12, np.random.default_rng(3))
    for other in (outputs, outputs.take(np.random.default_rng(7).permutation(N))):
        again = strategy.select(other, 12, np.random.default_rng(3))
        assert again.ids.tolist() == first.ids.tolist()
        assert again.scores.tolist() == first.scores.tolist()
        assert again.reasons == first.reasons


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), variant=st.sampled_from(VARIANTS))
def test_scores_follow_the_images_in_any_order(seed: int, variant: tuple[str, dict[str, object]]) -> None:
    strategy = get_strategy(variant[0], "nuclei", **variant[1])
    outputs = generated_pool(12, seed)
    order = np.random.default_rng(seed).permutation(12)
    scores = strategy.score(outputs)
    assert scores.shape == (12,)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(strategy.score(outputs.take(order)), scores[order], rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), variant=st.sampled_from(VARIANTS))
def test_scores_do_not_depend_on_the_order_of_boxes(seed: int, variant: tuple[str, dict[str, object]]) -> None:
    strategy = get_strategy(variant[0], "nuclei", **variant[1])
    outputs = generated_pool(12, seed, mean_boxes=6)
    shuffled: dict[str, Any] = {}
    rng = np.random.default_rng(seed)
    for field in ("detections", "auxiliary_detections", *MANY):
        value = getattr(outputs, field)
        shuffled[field] = tuple(_shuffle(v, rng) for v in value) if field in MANY else _shuffle(value, rng)
    if strategy.name == "cald":
        shuffled["view_detections"] = (
            outputs.view_detections
        )  # the first of equals, that is of no overlap at all, counts
    again = strategy.score(dataclasses.replace(outputs, **shuffled))
    np.testing.assert_allclose(again, strategy.score(outputs), rtol=1e-4, atol=1e-6)


def _shuffle(found: Detections, rng: np.random.Generator) -> Detections:
    order = np.lexsort((rng.uniform(size=len(found.scores)), found.image_of_box))
    return dataclasses.replace(found, **{name: value[order] for name, value in found.columns().items()})  # type: ignore[arg-type]


def test_inputs_are_left_alone(strategy: Strategy) -> None:
    outputs, before = generated_pool(N), generated_pool(N)
    strategy.select(outputs, 12, np.random.default_rng(0))
    for field in ("ids", *FIELDS):
        one, other = getattr(outputs, field), getattr(before, field)
        pairs = zip(one, other, strict=True) if field in MANY else [(one, other)]
        for a, b in pairs:
            if isinstance(a, Detections):
                for name, value in a.columns().items():
                    np.testing.assert_array_equal(value, b.columns()[name])
            else:
                np.testing.assert_array_equal(a, b)


def test_what_is_needed_is_enough_and_nothing_else_matters(strategy: Strategy) -> None:
    outputs = generated_pool(N)
    bare = _only(outputs, strategy, strategy.needs)
    assert len(strategy.select(bare, 5, np.random.default_rng(0))) == 5
    lean = _only(outputs, strategy, strategy.needs | strategy.wants)
    chosen = [strategy.select(o, 9, np.random.default_rng(0)).ids.tolist() for o in (outputs, lean)]
    assert chosen[0] == chosen[1]


def _only(outputs: PoolOutputs, strategy: Strategy, needed: frozenset[str]) -> PoolOutputs:
    """Only the needed fields, and of detections only the needed columns."""

    def cut(field: str, found: Detections) -> Detections:
        kept = strategy.columns.get(field, frozenset()) | {"boxes_px", "labels", "scores"}
        return dataclasses.replace(found, **{name: None for name in found.columns() if name not in kept})  # type: ignore[arg-type]

    changed: dict[str, Any] = {field: None for field in FIELDS if field not in needed}
    for field in needed & {"detections", "auxiliary_detections"}:
        changed[field] = cut(field, getattr(outputs, field))
    for field in needed & set(MANY):
        changed[field] = tuple(cut(field, found) for found in getattr(outputs, field))
    return dataclasses.replace(outputs, **changed)


def test_a_missing_need_is_named(strategy: Strategy) -> None:
    for field in strategy.needs:
        lacking = dataclasses.replace(generated_pool(N), **{field: None})  # type: ignore[arg-type]
        with pytest.raises(StrategyError, match=f"{strategy.name} needs '{field}', but it is missing. It is brought"):
            strategy.select(lacking, 5, np.random.default_rng(0))
        with pytest.raises(StrategyError, match=f"needs '{field}'"):
            strategy.score(lacking)


def test_a_missing_column_is_named(strategy: Strategy) -> None:
    for field, column, broken in _with_each_column(strategy, lambda value: None):
        with pytest.raises(
            StrategyError, match=rf"{strategy.name} needs '{field}(\[0\])?\.{column}', but it is missing"
        ):
            strategy.select(broken, 5, np.random.default_rng(0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_column_that_is_not_finite_raises(strategy: Strategy, value: float) -> None:
    def spoil(column: np.ndarray) -> np.ndarray:
        out = column.copy()
        out.flat[1] = value
        return out

    for field, column, broken in _with_each_column(strategy, spoil):
        with pytest.raises(StrategyError, match=rf"'{field}(\[0\])?\.{column}' must be finite, but 1 of"):
            strategy.select(broken, 5, np.random.default_rng(0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_array_that_is_not_finite_raises(strategy: Strategy, value: float) -> None:
    arrays = {"predicted_losses", "features", "labelled_features", "known_reference", "unknown_reference"}
    for field in (strategy.needs | strategy.wants) & (arrays | {"labelled_class_means"}):
        broken = getattr(generated_pool(N), field).astype(np.float64)
        broken.flat[1] = value
        outputs = dataclasses.replace(generated_pool(N), **{field: broken})  # type: ignore[arg-type]
        with pytest.raises(StrategyError, match=f"'{field}' must be finite, but 1 of"):
            strategy.select(outputs, 5, np.random.default_rng(0))


def _with_each_column(strategy: Strategy, change: Any) -> list[tuple[str, str, PoolOutputs]]:
    outputs = generated_pool(N)
    out = []
    for field, columns in strategy.columns.items():
        for column in columns:
            value = getattr(outputs, field)
            found = value[0] if field in MANY else value
            changed = dataclasses.replace(found, **{column: change(getattr(found, column))})  # type: ignore[arg-type]
            with_change = (changed, *value[1:]) if field in MANY else changed
            out.append((field, column, dataclasses.replace(outputs, **{field: with_change})))  # type: ignore[arg-type]
    return out


def test_a_pool_without_any_box(strategy: Strategy) -> None:
    outputs = generated_pool(N)
    empty: dict[str, Any] = {}
    for field in ("detections", "auxiliary_detections", *MANY):
        value = getattr(outputs, field)
        none = [v.keep(np.zeros(len(v.scores), dtype=np.bool_)) for v in (value if field in MANY else (value,))]
        empty[field] = tuple(none) if field in MANY else none[0]
    selection = strategy.select(dataclasses.replace(outputs, **empty), 5, np.random.default_rng(0))
    assert len(selection) == 5
    assert np.isfinite(selection.scores).all()


@pytest.mark.parametrize(("name", "options"), [v for v in VARIANTS if v[0] not in WITHOUT_BOXES])
def test_boxes_below_the_minimum_score_do_not_count(name: str, options: dict[str, object]) -> None:
    outputs = generated_pool(N)
    cut: dict[str, Any] = {}
    for field in ("detections", "auxiliary_detections", *MANY):
        value = getattr(outputs, field)
        kept = [v.keep(v.scores >= 0.5) for v in (value if field in MANY else (value,))]
        cut[field] = tuple(kept) if field in MANY else kept[0]
    strict = get_strategy(name, "nuclei", **options, min_score=0.5)
    lax = get_strategy(name, "nuclei", **options)
    np.testing.assert_allclose(strict.score(outputs), lax.score(dataclasses.replace(outputs, **cut)), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(the_names() - WITHOUT_BOXES))
@pytest.mark.parametrize("min_score", [-0.1, 1.1, "0.05"])
def test_bad_minimum_score(name: str, min_score: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}: min_score must"):
        get_strategy(name, "nuclei", min_score=min_score)


def test_an_empty_pool_and_a_pool_of_one(strategy: Strategy) -> None:
    outputs = generated_pool(N)
    with pytest.raises(EmptyPoolError, match="nothing is left in the pool"):
        strategy.select(outputs.take(np.empty(0, dtype=np.int64)), 5, np.random.default_rng(0))
    for row in (2, 4):  # image 2 has no box
        one = outputs.take(np.array([row]))
        assert strategy.select(one, 1, np.random.default_rng(0)).ids.tolist() == one.ids.tolist()


def test_each_class_says_where_it_comes_from_and_what_its_options_mean(strategy: Strategy) -> None:
    cls = strategy_class(strategy.name, "nuclei")
    assert "Source:" in (cls.__doc__ or "")
    documented = " ".join(parent.__doc__ or "" for parent in cls.__mro__[:3])
    assert all(f"{name}:" in documented for name in vars(strategy) if name in ("per", "of", "cue", "measure", "beta"))


def test_the_pool_of_these_tests_is_what_it_says() -> None:
    outputs = generated_pool(N)
    assert outputs.n_classes == K
    assert outputs.found().counts[[2, 5]].tolist() == [0, 0]
