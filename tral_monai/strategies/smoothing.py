# SPDX-License-Identifier: Apache-2.0
"""False-negative rates from few validation samples: 3 samples should not move a budget as 300 do."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs
from tral_monai.strategies.class_request import false_negative_rate

Smoothing = Literal["pooled", "jeffreys", "laplace", "none"]
SMOOTHINGS: tuple[Smoothing, ...] = ("pooled", "jeffreys", "laplace", "none")


def smoothed_rate(outputs: PoolOutputs, smoothing: Smoothing = "pooled", *, strength: float = 10.0) -> FloatArray:
    """Smoothed FN / (TP + FN) per class (C,).

    "pooled" adds `strength` imagined validation samples that are missed at the rate r of all classes together,
    r = (sum FN + 0.5) / (sum positives + 1): a class with few samples is pulled to the average. "jeffreys" adds half a
    miss and half a hit, "laplace" one of each: classes with few samples are pulled to 0.5, that is, explored. "none" is
    the plain rate, 0 for a class without samples.

    Raises:
        StrategyError: The validation split holds no sample at all, or more false negatives than samples.
    """
    plain = false_negative_rate(outputs)
    if smoothing == "none":
        return plain
    fn, positives = outputs.array("false_negatives"), outputs.array("positives")
    if smoothing == "pooled":
        r = (fn.sum() + 0.5) / (positives.sum() + 1.0)
        return np.asarray((fn + strength * r) / (positives + strength))
    a = 0.5 if smoothing == "jeffreys" else 1.0
    return np.asarray((fn + a) / (positives + 2 * a))
