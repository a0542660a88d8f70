# SPDX-License-Identifier: Apache-2.0
"""Whether a probability of 0.8 means right in 8 of 10: uncertainty sampling rests on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError


def expected_calibration_error(probabilities: npt.NDArray[Any], truth: npt.ArrayLike, *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence, weighted by samples.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 5.

    Args:
        probabilities: (n, C) softmax outputs, n >= 1.
        truth: (n,) class indices.
        bins: Equal bins over (0, 1]; a value on a boundary belongs to the lower bin.

    Returns:
        0 (calibrated) to 1.

    Raises:
        ConfigError: Shapes disagree, there is no sample, or `bins` is below 1.
    """
    p, t = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if p.ndim != 2 or len(p) == 0 or t.shape != (len(p),):
        raise ConfigError(f"Expected (n, C) probabilities and (n,) truth, n >= 1, but got {p.shape} and {t.shape}.")
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, but is {bins}.")
    confidence, right = p.max(axis=1), p.argmax(axis=1) == t
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(p))
