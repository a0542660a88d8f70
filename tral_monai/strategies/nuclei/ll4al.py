# SPDX-License-Identifier: Apache-2.0
"""Learning loss: the images of which the detector itself expects the highest loss."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.nuclei.common import answer
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top


@register
class Ll4al(Strategy):
    """Images with the highest loss predicted by the detector's loss-prediction head.

    `Selection.scores` and `score` are the predicted losses; trained by ranking, they have an order but no unit.

    Source: Yoo & Kweon 2019, "Learning Loss for Active Learning".
    """

    name = "ll4al"
    task = "nuclei"
    needs = frozenset({"predicted_losses"})
    loss_prediction = True

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return outputs.array("predicted_losses").astype(np.float64)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        scores = self._score(outputs)
        rows = top(scores, n, generator)
        return answer(
            outputs,
            rows,
            scores[rows],
            [f"predicted loss {scores[row]:.3g}, rank {k} of {len(scores)}" for k, row in enumerate(rows, start=1)],
        )
