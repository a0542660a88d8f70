# SPDX-License-Identifier: Apache-2.0
"""BADGE: diverse samples that would change the last layer much."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.geometry import F32, single_thread
from tral_monai.strategies.registry import register

_SAME = 1e-5  # single-precision products of some thousand terms are good to about this, relative to the lengths


@register
class Badge(Strategy):
    """k-means++ seeding on the gradients of the last layer, taking the predicted class for the label.

    The gradient embedding is the outer product of a = p - onehot(argmax p) and the features f, of width C * D. It is
    never built: products of two embeddings are (a_i . a_j)(f_i . f_j). The first pick has the longest gradient, the
    others are drawn with probability proportional to the squared distance to the nearest pick. One pass over
    probabilities and features per pick. `score` and `Selection.scores` are gradient lengths.

    Source: Ash et al. 2020, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", algorithm 1.
    """

    name = "badge"
    needs = frozenset({"probabilities", "features"})

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        a, f = _factors(outputs)
        return np.asarray(np.linalg.norm(a, axis=1) * np.sqrt(np.einsum("ij,ij->i", f, f), dtype=np.float64))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        a, f = _factors(outputs)
        lengths = self._score(outputs)
        squared = lengths**2
        nearest = np.full(len(squared), np.inf)
        rows = np.empty(n, dtype=np.intp)
        with single_thread():
            for j in range(n):
                pick = int(np.argmax(squared)) if j == 0 else _draw(nearest, generator)
                rows[j] = pick
                distance = squared + squared[pick] - 2.0 * (a @ a[pick]) * (f @ f[pick])
                # Differences below rounding are identical gradients, not tiny distances to draw from.
                distance[distance < _SAME * (squared + squared[pick])] = 0.0
                nearest = np.minimum(nearest, distance)
                nearest[pick] = -1.0
        return Selection(
            ids=outputs.ids[rows],
            scores=lengths[rows],
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=tuple(f"gradient length {v:.3g}, unlike those chosen before" for v in lengths[rows]),
        )


def _factors(outputs: PoolOutputs) -> tuple[FloatArray, F32]:
    a = outputs.array("probabilities").astype(np.float64)
    a[np.arange(len(a)), a.argmax(axis=1)] -= 1.0
    return a, outputs.array("features").astype(np.float32)


def _draw(nearest: FloatArray, generator: np.random.Generator) -> int:
    """A row in proportion to its squared distance; uniform among the open rows where all distances are 0."""
    mass = np.maximum(nearest, 0.0)
    if mass.sum() <= 0:
        mass = (nearest >= 0).astype(np.float64)
    return int(generator.choice(len(mass), p=mass / mass.sum()))
