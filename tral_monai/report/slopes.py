# SPDX-License-Identifier: Apache-2.0
"""How fast a score rises with labels, and how much of that is noise."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Trend = Literal["rising", "unclear", "hidden", "flat", "falling", "unknown"]

WORTHWHILE = 0.02  # F1; when not even the upper bound of a further round reaches it, a class stands still


class Slope(NamedTuple):
    """Change of a score per label, and the standard error of that change; NaN where it cannot be known."""

    per_label: float
    error_per_label: float

    def trend(self, next_labels: float) -> Trend:
        """The slope in units of its own error: from two errors on it is rising or falling, from one on unclear.

        Below one error nothing can be seen. It is ``flat`` where even the upper bound (slope plus two errors) brings
        less than 0.02 with ``next_labels`` more labels, and ``hidden`` where the set is too small to say so.
        """
        slope, error = self
        if math.isnan(slope) or math.isnan(error):
            return "unknown"
        if abs(slope) >= 2.0 * error and slope != 0.0:
            return "rising" if slope > 0 else "falling"
        if slope >= error and slope > 0.0:
            return "unclear"
        return "flat" if (slope + 2.0 * error) * next_labels < WORTHWHILE else "hidden"


def f1_standard_error(tp: float, fp: float, fn: float) -> float:
    """Sampling error of an F1 from its counts, as if the tiles were drawn independently.

    F1 = 2 TP / (2 TP + FP + FN) with multinomial counts; the delta method gives the variance
    4 TP E (TP + E) / (2 TP + E)^4 with E = FP + FN. Half a count is added to TP and to E, so that a perfect score on a
    few tiles is not taken as certain. Tiles of one slide resemble each other: the true error is larger.

    Returns:
        The standard error in 0..1; NaN where there are no counts at all.
    """
    if tp + fp + fn <= 0:
        return float("nan")
    hits, errors = tp + 0.5, fp + fn + 0.5
    return math.sqrt(4.0 * hits * errors * (hits + errors)) / (2.0 * hits + errors) ** 2


def class_standard_errors(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """`f1_standard_error` of every class of a confusion matrix (C, C), rows truth; returns (C,)."""
    hits = np.diag(confusion)
    return np.array(
        [
            f1_standard_error(float(tp), float(predicted - tp), float(true - tp))
            for tp, predicted, true in zip(hits, confusion.sum(axis=0), confusion.sum(axis=1), strict=True)
        ]
    )


def fit_slope(labels: NDArray[np.float64], values: NDArray[np.float64], errors: NDArray[np.float64]) -> Slope:
    """Least-squares slope of values (n,) against labels (n,), with the error that errors (n,) leave in it.

    The slope is sum(w_i v_i) with w_i = (x_i - mean x) / sum (x_j - mean x)^2, so its error is sqrt(sum w_i^2 e_i^2).
    Points whose value is NaN are left out; fewer than two different label counts give NaN.
    """
    known = ~np.isnan(values)
    labels, values, errors = labels[known], values[known], errors[known]
    if len(labels) < 2 or np.ptp(labels) == 0:
        return Slope(float("nan"), float("nan"))
    centred = labels - labels.mean()
    weights = centred / np.sum(centred**2)
    return Slope(float(np.sum(weights * values)), float(np.sqrt(np.sum((weights * errors) ** 2))))
