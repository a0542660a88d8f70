# SPDX-License-Identifier: Apache-2.0
"""Uncertainty sampling for detectors: the images whose boxes have the least certain classes."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.nuclei.common import AGGREGATES, Aggregate, NucleusStrategy, aggregate, answer, nuclei
from tral_monai.strategies.options import choice
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import MEASURES, Measure, top, uncertainty


@register
class NucleusUncertainty(NucleusStrategy):
    """Images with the highest U = mean over boxes of H(p_b), p_b over background and the K known classes.

    `Selection.scores` and `score` are U, in nats for the entropy. An image without a box has U = 0.

    Source: Lewis & Gale 1994 and Luo et al. 2013, as OSAL-ND cites them; the mean matches its Eq. 5.

    Args:
        measure: Of each box: "entropy", "margin" or "least_confidence".
        aggregate: "mean", "sum" or "max" over the boxes of an image. The sum also favours busy images.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is unknown or out of range.
    """

    name = "uncertainty"
    needs = frozenset({"detections"})
    columns = {"detections": frozenset({"probabilities"})}  # noqa: RUF012 - read-only by type

    def __init__(self, *, measure: Measure = "entropy", aggregate: Aggregate = "mean", min_score: float = 0.05) -> None:
        super().__init__(min_score=min_score)
        choice(self.name, "measure", measure, MEASURES)
        choice(self.name, "aggregate", aggregate, AGGREGATES)
        self.measure: Measure = measure
        self.aggregate: Aggregate = aggregate

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        found = self.counted(outputs.found())
        return aggregate(found, uncertainty(np.asarray(found.probabilities), self.measure), self.aggregate)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        scores = self._score(outputs)
        counts = self.counted(outputs.found()).counts
        rows = top(scores, n, generator)
        label = f"{self.aggregate} {self.measure.replace('_', ' ')}"
        return answer(
            outputs,
            rows,
            scores[rows],
            [
                f"{label} {scores[row]:.3f} over {nuclei(counts[row])}, rank {k} of {len(scores)}"
                for k, row in enumerate(rows, start=1)
            ],
        )
