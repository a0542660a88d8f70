# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.allocation import allocate, largest_remainder


def test_shares_by_hand() -> None:
    # 7 * (0.5, 0.3, 0.2) = 3.5, 2.1, 1.4: floors 3, 2, 1; the one that is left goes to the remainder 0.5.
    result = allocate([0.5, 0.3, 0.2], 7)
    assert result.counts.tolist() == [4, 2, 1]
    assert result.counts.dtype == np.int64
    assert not result.stop


def test_equal_remainders_go_to_lower_indices() -> None:
    assert allocate([1, 1, 1], 8).counts.tolist() == [3, 3, 2]


def test_exact_products_are_not_lost_to_floating_point() -> None:
    # 0.29 * 100 is 28.999999999999996 in binary.
    assert allocate([0.29, 0.71], 100).counts.tolist() == [29, 71]


def test_all_zero_weights_are_equal_shares() -> None:
    assert allocate([0, 0, 0, 0, 0], 20_000).counts.tolist() == [4000] * 5


def test_all_zero_weights_are_shared_by_eligible_classes_only() -> None:
    assert allocate([0, 0, 0], 10, eligible=[False, True, True]).counts.tolist() == [0, 5, 5]


def test_no_eligible_class_means_all() -> None:
    assert allocate([0, 0], 4, eligible=[False, False]).counts.tolist() == [2, 2]


def test_iter_redistributes_by_weight() -> None:
    # 50, 30, 20 asked; the first has 10, so 40 are left for weights 0.3 : 0.2 -> 24 and 16.
    result = allocate([0.5, 0.3, 0.2], 100, [10, 1000, 1000])
    assert result.counts.tolist() == [10, 54, 36]
    assert result.requested.tolist() == [50, 30, 20]
    assert result.short == (0,)


def test_iter_redistributes_more_than_once() -> None:
    # First 40/30/30 capped to 40/5/30, then 25 to weights 4 : 3 = 14/11 (25*4/7 = 14.29), of which class 2 takes 2.
    result = allocate([4, 3, 3], 100, [1000, 5, 32])
    assert result.counts.tolist() == [63, 5, 32]


def test_iter_shares_equally_when_only_zero_weights_have_room() -> None:
    assert allocate([1, 0, 0], 10, [4, 100, 100]).counts.tolist() == [4, 3, 3]


def test_iter_prefers_eligible_classes_among_zero_weights() -> None:
    assert allocate([1, 0, 0], 10, [4, 4, 100], eligible=[True, True, False]).counts.tolist() == [4, 4, 2]


def test_iter_empties_all_pools() -> None:
    assert allocate([0.9, 0.1], 100, [3, 4]).counts.tolist() == [3, 4]


def test_ood_stops_before_drawing() -> None:
    result = allocate([0.5, 0.5], 10, [4, 100], mode="ood")
    assert result.stop
    assert result.counts.tolist() == [0, 0]
    assert result.short == (0,)


def test_ood_goes_on_when_the_pool_holds_exactly_what_is_asked() -> None:
    result = allocate([0.5, 0.5], 10, [5, 5], mode="ood")
    assert not result.stop
    assert result.counts.tolist() == [5, 5]


def test_released_truncates_and_loses_samples() -> None:
    # Shares of 10 for counts 1, 1, 1: 3.33 each, truncated to 3: one sample is lost.
    assert allocate([1, 1, 1], 10, quirks="released").counts.tolist() == [3, 3, 3]


def test_released_exhausted_pools_silently_give_fewer() -> None:
    assert allocate([1, 1], 10, [2, 100], quirks="released").counts.tolist() == [2, 5]


def test_released_all_zero_is_one_fifth_each() -> None:
    assert allocate([0] * 5, 20_000, quirks="released").counts.tolist() == [4000] * 5


def test_total_zero_asks_for_nothing() -> None:
    assert allocate([1, 2], 0).counts.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"weights": [1], "total": 1, "mode": "odd"}, ConfigError, "mode must be 'iter' or 'ood', but is 'odd'"),
        ({"weights": [1], "total": 1, "quirks": "yes"}, ConfigError, "quirks must be None or 'released'"),
        ({"weights": [1, -1], "total": 1}, StrategyError, "weights must be a list of finite numbers"),
        ({"weights": [1, np.nan], "total": 1}, StrategyError, "weights must be a list of finite numbers"),
        ({"weights": [], "total": 1}, StrategyError, "weights must be a list of finite numbers"),
        ({"weights": [1], "total": -1}, StrategyError, "total must be at least 0, but is -1"),
        ({"weights": [1], "total": 1, "available": [1, 2]}, StrategyError, r"available has shape \(2,\)"),
        ({"weights": [1], "total": 1, "available": [-1]}, StrategyError, "available must not be negative"),
        ({"weights": [1], "total": 1, "eligible": [True, True]}, StrategyError, r"eligible has shape \(2,\)"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        allocate(**kwargs)  # type: ignore[arg-type]


_weight = st.one_of(st.just(0.0), st.floats(1e-6, 1e6))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_weight, st.integers(0, 500)), min_size=1, max_size=8), st.integers(0, 3000))
def test_iter_places_all_that_the_pools_hold(classes: list[tuple[float, int]], total: int) -> None:
    weights, available = (np.array(c) for c in zip(*classes, strict=True))
    counts = allocate(weights, total, available).counts
    assert counts.sum() == min(total, available.sum())
    assert (counts >= 0).all()
    assert (counts <= available).all()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8), st.integers(0, 10**6))
def test_largest_remainder_stays_within_one_of_the_exact_share(weights: list[float], total: int) -> None:
    w = np.array(weights)
    counts = largest_remainder(w, total)
    assert counts.sum() == total
    assert np.abs(counts - w / w.sum() * total).max() < 1 + 1e-6
