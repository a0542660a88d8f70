# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.metrics.calibration import expected_calibration_error


def test_by_hand() -> None:
    # Bin 0.5-0.75: confidence 0.6, 0.7, one right: |1 - 1.3| = 0.3. Bin 0.75-1: 0.9, right: 0.1. Sum 0.4 of 3.
    p = np.array([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    assert expected_calibration_error(p, [0, 0, 0], bins=4) == pytest.approx(0.4 / 3)


def test_calibrated_is_zero() -> None:
    p = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(p, [0, 0, 0, 1]) == 0.0


def test_sure_and_always_wrong_is_one() -> None:
    assert expected_calibration_error(np.array([[1.0, 0.0]]), [1]) == 1.0


def test_a_value_on_a_boundary_belongs_to_the_lower_bin() -> None:
    # 0.5 (right) and 0.6 (wrong) with two bins: apart, |1 - 0.5| + |0 - 0.6|; together it would be |1 - 1.1|.
    p = np.array([[0.5, 0.5], [0.6, 0.4]])
    assert expected_calibration_error(p, [0, 1], bins=2) == pytest.approx(1.1 / 2)


@pytest.mark.parametrize(
    ("p", "truth", "bins", "message"),
    [
        (np.ones(3), [0, 0, 0], 5, r"Expected \(n, C\) probabilities"),
        (np.ones((2, 1)), [0], 5, r"got \(2, 1\) and \(1,\)"),
        (np.ones((0, 2)), [], 5, "n >= 1"),
        (np.ones((1, 1)), [0], 0, "bins must be at least 1, but is 0"),
    ],
)
def test_bad_arguments(p: np.ndarray, truth: list[int], bins: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expected_calibration_error(p, truth, bins=bins)
