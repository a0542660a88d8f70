# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tral_monai.errors import LedgerError
from tral_monai.report.comparison import area, compare
from tral_monai.report.run_data import Curve, RunData

MakeRun = Callable[..., RunData]

# Macro F1 on test of the small run: 0.625 at 4 labels, (14/19 + 36/41) / 2 at 8 labels.
FIRST, LAST = 0.625, (14 / 19 + 36 / 41) / 2
WEAK = {(1, "test"): [[5, 5], [10, 10]], (2, "test"): [[5, 5], [10, 10]]}  # F1 10/25 and 20/35 throughout
WEAK_MACRO = (10 / 25 + 20 / 35) / 2


def test_area_is_the_mean_height_of_the_joined_points() -> None:
    curve = Curve(np.array([1, 2, 3]), np.array([10.0, 20.0, 40.0]), np.array([0.5, 0.7, 0.9]))
    # Trapezoids 10 * 0.6 + 20 * 0.8 = 22 over a range of 30.
    assert area(curve, (10, 40)) == pytest.approx(22 / 30)
    # From 15 (0.6) over 20 (0.7) to 30 (0.8): 5 * 0.65 + 10 * 0.75 = 10.75 over 15.
    assert area(curve, (15, 30)) == pytest.approx(10.75 / 15)
    assert area(curve, (20, 20)) == pytest.approx(0.7)
    assert np.isnan(area(curve, (5, 40)))


def test_area_leaves_out_undefined_scores_and_takes_the_last_of_equal_counts() -> None:
    labels, values = np.array([10.0, 20.0, 30.0, 30.0]), np.array([0.5, np.nan, 0.6, 0.9])
    assert area(Curve(np.arange(4), labels, values), (10, 30)) == pytest.approx(0.7)
    nothing = Curve(np.arange(2), np.array([1.0, 2.0]), np.array([np.nan, np.nan]))
    assert np.isnan(area(nothing, (1, 2)))


def test_two_strategies_at_equal_labels(make_run: MakeRun) -> None:
    comparison = compare([make_run("a"), make_run("b", strategy="random", confusions=WEAK)])
    assert comparison is not None
    assert comparison.split == "test"
    assert comparison.common == (4.0, 8.0)
    assert comparison.common_is_all
    quota, random = comparison.bands
    assert (quota.strategy, random.strategy) == ("tri_al_quota", "random")
    assert quota.area_mean == pytest.approx((FIRST + LAST) / 2)
    assert random.area_mean == pytest.approx(WEAK_MACRO)
    assert comparison.columns == ("Blood_f1", "Stroma_f1", "f1_micro", "f1_macro")
    assert quota.final == pytest.approx((14 / 19, 36 / 41, 25 / 30, LAST))
    assert quota.sd is None
    assert quota.area_sd is None
    assert any("single seed" in note for note in comparison.notes)


def test_seeds_of_one_strategy_make_a_band(make_run: MakeRun) -> None:
    comparison = compare([make_run("a"), make_run("b", seed=1, confusions=WEAK)])
    assert comparison is not None
    (band,) = comparison.bands
    assert band.labels.tolist() == [4.0, 8.0]
    assert band.mean == pytest.approx([(FIRST + WEAK_MACRO) / 2, (LAST + WEAK_MACRO) / 2])
    assert band.sd is not None
    # With two runs the standard deviation (divisor n - 1) is the difference / sqrt(2).
    assert band.sd == pytest.approx([abs(FIRST - WEAK_MACRO) / 2**0.5, abs(LAST - WEAK_MACRO) / 2**0.5])
    assert band.final_sd is not None
    assert band.final_sd[-1] == pytest.approx(abs(LAST - WEAK_MACRO) / 2**0.5)
    assert comparison.notes == ()


def test_strategies_with_the_same_seeds_are_compared_in_pairs(make_run: MakeRun) -> None:
    ours = [make_run("a0"), make_run("a1", seed=1)]
    theirs = [make_run("b0", strategy="random", confusions=WEAK), make_run("b1", strategy="random", seed=1)]
    comparison = compare([*ours, *theirs])
    assert comparison is not None
    ((name, (test, p)),) = comparison.paired.items()
    assert (name, test.n, test.wins) == ("random", 2, 0)  # one seed lost, one equal
    assert test.mean_difference == pytest.approx((WEAK_MACRO - (FIRST + LAST) / 2) / 2)
    assert p == pytest.approx(0.5)  # t = 1 with one degree of freedom
    other_seed = make_run("b2", strategy="random", seed=2)
    unpaired = compare([*ours, theirs[0], other_seed])
    assert unpaired is not None
    assert unpaired.paired == {}


def test_scores_are_read_off_at_the_largest_common_label_count(make_run: MakeRun) -> None:
    dear = make_run("dear", strategy="random", cost=1.5)  # 6 and 12 labels: 8 lie a third of the way between
    comparison = compare([make_run("a"), dear])
    assert comparison is not None
    assert comparison.common == (6.0, 8.0)
    assert not comparison.common_is_all
    random = next(band for band in comparison.bands if band.strategy == "random")
    assert random.final[-1] == pytest.approx(FIRST + (LAST - FIRST) / 3)


def test_runs_without_a_common_range_get_no_areas(make_run: MakeRun) -> None:
    dear = make_run("dear", strategy="random", cost=100.0)
    comparison = compare([make_run("a"), dear])
    assert comparison is not None
    assert comparison.common is None
    assert any("share no label count" in note for note in comparison.notes)
    assert all(np.isnan(band.area_mean) for band in comparison.bands)


def test_another_test_set_is_pointed_out(make_run: MakeRun) -> None:
    other = make_run("b", strategy="random", confusions={(1, "test"): [[1, 0], [0, 1]], (2, "test"): [[1, 0], [0, 1]]})
    comparison = compare([make_run("a"), other])
    assert comparison is not None
    assert any("test sets differ" in note for note in comparison.notes)


def test_a_run_without_evaluation_is_left_out_and_named(make_run: MakeRun) -> None:
    empty = make_run("empty", confusions={})
    assert compare([make_run("a"), empty]) is None
    three = compare([make_run("b"), make_run("c", seed=1), empty])
    assert three is not None
    assert "empty was not evaluated on test and is left out." in three.notes


def test_runs_of_other_classes_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(LedgerError, match="only on the same classes"):
        compare([make_run("a"), make_run("b", classes=["Blood", "Nerve"])])
