# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from tral_monai.report.slopes import Slope, class_standard_errors, f1_standard_error, fit_slope


def test_standard_error_of_f1_by_hand() -> None:
    # hits 6.5, errors 6.5: sqrt(4 * 6.5 * 6.5 * 13) / 19.5^2 = 46.8722 / 380.25
    assert f1_standard_error(6, 2, 4) == pytest.approx(0.123267, abs=1e-6)
    assert math.isnan(f1_standard_error(0, 0, 0))


def test_standard_error_agrees_with_resampled_counts() -> None:
    counts = np.array([300, 60, 90])  # TP, FP, FN
    draws = np.random.default_rng(0).multinomial(450, counts / 450, size=20_000)
    scores = 2 * draws[:, 0] / (2 * draws[:, 0] + draws[:, 1] + draws[:, 2])
    assert f1_standard_error(300, 60, 90) == pytest.approx(scores.std(), rel=0.02)


def test_a_perfect_score_on_few_tiles_is_not_certain() -> None:
    assert f1_standard_error(3, 0, 0) > f1_standard_error(300, 0, 0) > 0


def test_class_errors_take_rows_as_truth() -> None:
    errors = class_standard_errors(np.array([[6, 4], [2, 8]]))
    assert errors == pytest.approx([f1_standard_error(6, 2, 4), f1_standard_error(8, 4, 2)])


def test_slope_by_hand() -> None:
    # Weights are -1/200, 0, 1/200: slope (0.7 - 0.5) / 200, error sqrt(0.03^2 + 0.04^2) / 200.
    labels, errors = np.array([100.0, 200.0, 300.0]), np.array([0.03, 0.5, 0.04])
    slope = fit_slope(labels, np.array([0.5, 0.9, 0.7]), errors)
    assert slope.per_label == pytest.approx(0.001)
    assert slope.error_per_label == pytest.approx(0.05 / 200)


def test_slope_leaves_out_undefined_scores() -> None:
    slope = fit_slope(np.array([10.0, 20.0, 30.0]), np.array([0.2, math.nan, 0.4]), np.array([0.0, 0.0, 0.0]))
    assert slope.per_label == pytest.approx(0.01)


@pytest.mark.parametrize("labels", [[10.0], [10.0, 10.0]])
def test_slope_of_a_single_label_count_is_unknown(labels: list[float]) -> None:
    slope = fit_slope(np.array(labels), np.full(len(labels), 0.5), np.full(len(labels), 0.1))
    assert math.isnan(slope.per_label)
    assert slope.trend(10) == "unknown"


@pytest.mark.parametrize(
    ("slope", "error", "trend"),
    [
        (0.002, 0.001, "rising"),
        (-0.002, 0.001, "falling"),
        (0.0015, 0.001, "unclear"),
        (0.0005, 0.001, "hidden"),  # at best 0.0025 per label: 0.25 F1 with 100 labels
        (-0.0015, 0.001, "hidden"),  # at best 0.0005 per label: 0.05 F1 with 100 labels
        (0.00001, 0.00005, "flat"),  # at best 0.00011 per label: 0.011 F1 with 100 labels
        (0.0, 0.0, "flat"),
        (0.001, math.nan, "unknown"),
    ],
)
def test_trend_compares_the_slope_with_its_error(slope: float, error: float, trend: str) -> None:
    assert Slope(slope, error).trend(100) == trend
