# SPDX-License-Identifier: Apache-2.0
"""TRI-AL's entropy arm: candidates by class distribution, then the most entropic of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from tral_monai.strategies.allocation import allocate
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.class_request import draw_rows, pool_counts
from tral_monai.strategies.options import choice, number
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import top, uncertainty

Candidates = Literal["class_distribution", "uniform", "all"]


@register
class TriALEntropy(Strategy):
    """TRI-AL_ENT: of `ratio` times S candidates, the S whose predictions have the highest entropy.

    The paper samples 30,000 candidates from the pools by the class distribution of the entire training set (which needs
    pools sorted by true class) and keeps 20,000. `Selection.scores` is the entropy in nats.

    Source: Fuster et al. 2023, section III (TRI-AL_ENT).

    Args:
        ratio: Candidates per sample asked for; the paper's 30,000 / 20,000 = 1.5.
        candidates: "class_distribution" as in the paper; "uniform" draws candidates from the pool without looking at
            classes; "all" takes the whole pool, which is plain entropy sampling.

    Raises:
        ConfigError: `ratio` is below 1 or `candidates` is unknown.
    """

    name = "tri_al_entropy"

    def __init__(self, *, ratio: float = 1.5, candidates: Candidates = "class_distribution") -> None:
        choice(self.name, "candidates", candidates, ("class_distribution", "uniform", "all"))
        self.ratio = number(self.name, "ratio", ratio, low=1.0)
        self.candidates: Candidates = candidates
        by_class = {"pool_classes", "class_distribution"} if candidates == "class_distribution" else set()
        self.needs = frozenset({"probabilities"} | by_class)

    def candidate_rows(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> npt.NDArray[np.intp]:
        """Rows of the candidates among which the n most entropic are kept."""
        pool = len(outputs.ids)
        # Rounded first, so that 1.1 * 10 = 11.000000000000002 asks for 11.
        m = min(pool, int(np.ceil(round(self.ratio * n, 6))))
        if self.candidates == "all" or m == pool:
            return np.arange(pool)
        if self.candidates == "uniform":
            return np.sort(generator.permutation(pool)[:m])
        counts = allocate(outputs.array("class_distribution"), m, pool_counts(outputs)).counts
        return np.sort(np.concatenate(draw_rows(outputs.array("pool_classes"), counts, generator)))

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return uncertainty(outputs.array("probabilities"), "entropy")

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        candidates = outputs.take(self.candidate_rows(outputs, n, generator))
        scores = self._score(candidates)
        rows = top(scores, n, generator)
        return Selection(
            ids=candidates.ids[rows],
            scores=scores[rows],
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=tuple(
                f"entropy {s:.3f}, rank {k} of {len(scores)} candidates" for k, s in enumerate(scores[rows], start=1)
            ),
        )
