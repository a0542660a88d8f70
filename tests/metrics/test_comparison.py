# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tral_monai.errors import ConfigError
from tral_monai.metrics.comparison import compare_to_control, holm, paired_t_test

A, B = [0.82, 0.80, 0.85, 0.81, 0.84], [0.80, 0.79, 0.81, 0.80, 0.80]


def test_by_hand() -> None:
    # Differences 2, 1, 4, 1, 4 (hundredths): mean 2.4, sum of squares around it 9.2, s = sqrt(2.3) = 1.5166.
    result = paired_t_test(A, B)
    assert result.mean_difference == pytest.approx(0.024)
    assert result.effect_size == pytest.approx(2.4 / math.sqrt(2.3))
    assert result.t == pytest.approx(2.4 / math.sqrt(2.3 / 5))
    # t quantile 0.975 at 4 degrees of freedom: 2.7764.
    half = 2.776445 * math.sqrt(2.3 / 5) / 100
    assert result.confidence_interval == pytest.approx((0.024 - half, 0.024 + half), abs=1e-7)
    assert (result.n, result.wins) == (5, 5)


def test_against_scipy() -> None:
    expected = stats.ttest_rel(A, B)
    result = paired_t_test(A, B)
    assert result.t == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.confidence_interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_nadeau_bengio_widens_the_variance() -> None:
    # Five folds, n_test / n_train = 1/4: variance (1/5 + 1/4) s^2 instead of s^2 / 5.
    result = paired_t_test(A, B, test_train_ratio=0.25)
    assert result.t == pytest.approx(2.4 / math.sqrt(2.3 * 0.45))
    assert result.p_value > paired_t_test(A, B).p_value


def test_no_difference_at_all() -> None:
    result = paired_t_test(A, A)
    assert (result.t, result.p_value, result.wins) == (0.0, 1.0, 0)
    assert math.isnan(result.effect_size)


def test_the_same_difference_everywhere() -> None:
    result = paired_t_test(np.array(B) - 0.01, B)
    assert result.t == -math.inf
    assert result.p_value == 0.0
    assert result.confidence_interval == pytest.approx((-0.01, -0.01))


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1], [1], {}, "needs two pairs or more, but got 1 and 1"),
        ([1, 2], [1], {}, "got 2 and 1"),
        ([1, np.nan], [1, 2], {}, "needs finite scores"),
        (A, B, {"test_train_ratio": 0}, "test_train_ratio must be above 0"),
        (A, B, {"confidence": 95}, "confidence must lie between 0 and 1"),
    ],
)
def test_bad_arguments(a: list[float], b: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        paired_t_test(a, b, **options)  # type: ignore[arg-type]


def test_holm_by_hand() -> None:
    # Sorted 0.01 * 3 = 0.03, 0.02 * 2 = 0.04, 0.04 * 1 = 0.04.
    assert holm([0.04, 0.01, 0.02]).tolist() == pytest.approx([0.04, 0.03, 0.04])
    # A later product may not fall below an earlier one, nor above 1.
    assert holm([0.03, 0.02, 0.9]).tolist() == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@pytest.mark.parametrize("p", [[-0.1], [1.1], [float("nan")]])
def test_bad_p_values(p: list[float]) -> None:
    with pytest.raises(ConfigError, match="p-values must lie between 0 and 1"):
        holm(p)


def test_all_against_a_control() -> None:
    scores = {"random": B, "quota": A, "balanced": [0.79, 0.80, 0.80, 0.81, 0.80]}
    result = compare_to_control(scores, "random")
    assert set(result) == {"quota", "balanced"}
    test, adjusted = result["quota"]
    assert test.mean_difference == pytest.approx(0.024)
    assert adjusted == pytest.approx(2 * test.p_value)
    # Balanced differs by -1, 1, -1, 1, 0: mean 0.
    assert result["balanced"][1] == pytest.approx(1.0)


def test_unknown_control() -> None:
    with pytest.raises(ConfigError, match="control 'rand' is not among"):
        compare_to_control({"random": B}, "rand")
