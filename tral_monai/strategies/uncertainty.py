# SPDX-License-Identifier: Apache-2.0
"""Uncertainty sampling: the samples about which the model's probabilities say least."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tral_monai.errors import StrategyError
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.options import choice
from tral_monai.strategies.registry import register

Measure = Literal["entropy", "margin", "least_confidence"]
MEASURES: tuple[Measure, ...] = ("entropy", "margin", "least_confidence")


def uncertainty(probabilities: npt.NDArray[Any], measure: Measure = "entropy") -> FloatArray:
    """Uncertainty of softmax outputs (n, C) -> (n,) float64; higher is less certain.

    entropy: -sum p ln p, in nats, 0 to ln C. margin: 1 - (p_first - p_second). least_confidence: 1 - p_first.

    Raises:
        StrategyError: A margin is asked for with fewer than two classes.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if measure == "entropy":
        log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
        return np.asarray(np.maximum(-(p * log_p).sum(axis=1), 0.0))
    if measure == "least_confidence":
        return np.asarray(1.0 - p.max(axis=1))
    if p.shape[1] < 2:
        raise StrategyError("A margin needs at least two classes.")
    top = np.partition(p, -2, axis=1)
    return np.asarray(1.0 - (top[:, -1] - top[:, -2]))


def top(scores: FloatArray, n: int, generator: np.random.Generator) -> npt.NDArray[np.intp]:
    """Rows of the n highest scores, highest first; equal scores in random order."""
    return np.lexsort((generator.permutation(len(scores)), -scores))[:n]


@register
class Uncertainty(Strategy):
    """The n most uncertain samples of the whole pool.

    Source: Settles 2009, "Active learning literature survey", section 3.1.

    Args:
        measure: "entropy", "margin" or "least_confidence", see `uncertainty`.

    Raises:
        ConfigError: `measure` is unknown.
    """

    name = "uncertainty"
    needs = frozenset({"probabilities"})

    def __init__(self, *, measure: Measure = "entropy") -> None:
        choice(self.name, "measure", measure, MEASURES)
        self.measure: Measure = measure

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return uncertainty(outputs.array("probabilities"), self.measure)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        scores = self._score(outputs)
        rows = top(scores, n, generator)
        label = self.measure.replace("_", " ")
        return Selection(
            ids=outputs.ids[rows],
            scores=scores[rows],
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=tuple(f"{label} {s:.3f}, rank {k} of {len(scores)}" for k, s in enumerate(scores[rows], start=1)),
        )
