# SPDX-License-Identifier: Apache-2.0
"""Is one strategy better than another? Paired over seeds or folds, corrected for overlap and for many questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError


@dataclass(frozen=True)
class PairedComparison:
    """Difference first - second over pairs.

    Args:
        n: Pairs.
        mean_difference: In the unit of the score.
        confidence_interval: Of the mean difference, by the same t statistic as `p_value`.
        effect_size: Mean difference / standard deviation of the differences (Cohen's d_z); NaN when all are equal.
        t: The statistic; 0 without any difference, infinite when all pairs differ by exactly the same amount.
        p_value: Two-sided.
        wins: Pairs in which the first is higher.
    """

    n: int
    mean_difference: float
    confidence_interval: tuple[float, float]
    effect_size: float
    t: float
    p_value: float
    wins: int


def paired_t_test(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    test_train_ratio: float | None = None,
    confidence: float = 0.95,
) -> PairedComparison:
    """Paired t-test of two strategies over the same seeds or folds.

    Args:
        first: (n,) one score per seed or (fold, seed), n >= 2.
        second: (n,) scores of the other strategy with the same seeds in the same order.
        test_train_ratio: n_test / n_train of the folds, for scores from resampled or cross-validated splits, whose
            training sets overlap: the variance of the mean is then (1/n + n_test/n_train) s^2 instead of s^2/n. None
            for independent runs on one fixed split.
        confidence: Of the interval.

    Source: the correction is Nadeau & Bengio 2003, "Inference for the Generalization Error", section 4.

    Raises:
        ConfigError: Fewer than two pairs, unequal lengths, values that are not finite, or an option out of range.
    """
    from scipy import stats

    a, b = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (first, second))
    if len(a) != len(b) or len(a) < 2:
        raise ConfigError(f"A paired test needs two pairs or more, but got {len(a)} and {len(b)} scores.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ConfigError("A paired test needs finite scores, but some are NaN or infinite.")
    if test_train_ratio is not None and not test_train_ratio > 0:
        raise ConfigError(f"test_train_ratio must be above 0, but is {test_train_ratio}.")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, but is {confidence}.")
    difference = a - b
    n, mean, spread = len(difference), float(difference.mean()), float(difference.std(ddof=1))
    # Equal differences whose rounding errors differ have no spread to speak of.
    if spread <= 1e-12 * max(np.abs(a).max(), np.abs(b).max()):
        spread = 0.0
    error = spread * np.sqrt(1 / n + (test_train_ratio or 0.0))
    if error > 0:
        t = mean / error
    else:
        t = 0.0 if abs(mean) <= 1e-12 * max(np.abs(a).max(), np.abs(b).max()) else float(np.copysign(np.inf, mean))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    return PairedComparison(
        n=n,
        mean_difference=mean,
        confidence_interval=(mean - half, mean + half),
        effect_size=mean / spread if spread > 0 else float("nan"),
        t=float(t),
        p_value=float(2 * stats.t.sf(abs(t), n - 1)),
        wins=int((difference > 0).sum()),
    )


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down correction: adjusted p-values (k,), in the order given.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".

    Raises:
        ConfigError: A value lies outside of 0 to 1.
    """
    p = np.asarray(p_values, dtype=np.float64).reshape(-1)
    if not ((p >= 0) & (p <= 1)).all():
        raise ConfigError(f"p-values must lie between 0 and 1, but are {p.tolist()}.")
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    result = np.empty_like(p)
    result[order] = adjusted
    return result


def compare_to_control(
    scores: Mapping[str, npt.ArrayLike], control: str, *, test_train_ratio: float | None = None
) -> dict[str, tuple[PairedComparison, float]]:
    """Every strategy against one control, with p-values adjusted by Holm.

    Args:
        scores: Scores per strategy, (n,) each, with the same seeds in the same order.
        control: The name to compare with, such as "random".
        test_train_ratio: See `paired_t_test`.

    Returns:
        Comparison (strategy - control) and adjusted p-value, by strategy.

    Raises:
        ConfigError: The control is not among the strategies, or scores cannot be paired.
    """
    if control not in scores:
        raise ConfigError(f"control '{control}' is not among the strategies {sorted(scores)}.")
    tests = {
        name: paired_t_test(values, scores[control], test_train_ratio=test_train_ratio)
        for name, values in scores.items()
        if name != control
    }
    adjusted = holm([test.p_value for test in tests.values()])
    return {name: (test, float(p)) for (name, test), p in zip(tests.items(), adjusted, strict=True)}
