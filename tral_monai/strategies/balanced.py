# SPDX-License-Identifier: Apache-2.0
"""Balanced sampling: the same number of samples for each class, the control for class requests."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tral_monai.strategies.allocation import AllocationResult, allocate
from tral_monai.strategies.base import FloatArray, IntArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.class_request import class_request
from tral_monai.strategies.options import choice
from tral_monai.strategies.registry import register

By = Literal["true_class", "predicted"]


@register
class Balanced(Strategy):
    """Equal numbers of each class, drawn at random within a class; shortages are shared by the other classes.

    Only classes that the pool, or the predictions on it, contain take part. Every score is 0.

    Source: none; the class-balanced control that the TRI-AL paper lacks.

    Args:
        by: "true_class" is a class request and needs pools sorted by true class; "predicted" takes samples that the
            model assigns to the class.

    Raises:
        ConfigError: `by` is unknown.
    """

    name = "balanced"

    def __init__(self, *, by: By = "true_class") -> None:
        choice(self.name, "by", by, ("true_class", "predicted"))
        self.by: By = by
        self.needs = frozenset({"pool_classes" if by == "true_class" else "probabilities"})

    def request(self, outputs: PoolOutputs, n: int) -> AllocationResult:
        """How many samples of each class to ask for, without drawing any."""
        left = np.bincount(self._classes(outputs), minlength=outputs.n_classes)
        return allocate((left > 0).astype(np.float64), n, left)

    def _classes(self, outputs: PoolOutputs) -> IntArray:
        if self.by == "true_class":
            return outputs.array("pool_classes")
        return outputs.array("probabilities").argmax(axis=1).astype(np.int64)

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return np.zeros(len(outputs.ids))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        counts = self.request(outputs, n).counts
        kind = "asked" if self.by == "true_class" else "predicted"
        reasons = [f"equal shares: {c} of {n} {kind} {outputs.class_name(i)}" for i, c in enumerate(counts)]
        return class_request(
            outputs.ids,
            self._classes(outputs),
            counts,
            generator,
            class_scores=np.zeros(len(counts)),
            class_reasons=reasons,
        )
