# SPDX-License-Identifier: Apache-2.0
"""Random sampling: the control that every strategy has to beat."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.registry import register


@register
class Random(Strategy):
    """A uniform sample of the pool, without replacement. Every score is 0.

    Source: none; the control.
    """

    name = "random"
    task = "any"

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return np.zeros(len(outputs.ids))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        rows = generator.permutation(len(outputs.ids))[:n]
        return Selection(
            ids=outputs.ids[rows],
            scores=np.zeros(n),
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=("drawn at random",) * n,
        )
