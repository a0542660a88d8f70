# SPDX-License-Identifier: Apache-2.0
"""CLUE: clusters of uncertain samples, one sample from each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.geometry import Rows, centred, k_means, nearest_rows, single_thread
from tral_monai.strategies.options import number
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import uncertainty


def clue_rows(features: npt.NDArray[Any], weights: FloatArray, k: int, generator: np.random.Generator) -> Rows:
    """Rows nearest the centroids of a k-means of `features` (n, D) weighted by `weights` (n,); k distinct rows."""
    (x,) = centred(features)
    if k >= len(x):
        return np.arange(len(x))
    with single_thread():
        centres, _ = k_means(x, k, generator, weights=weights)
        return nearest_rows(x, centres)


@register
class Clue(Strategy):
    """Weighted k-means with as many clusters as samples asked for, weights = entropy; from each the nearest sample.

    Uncertain regions get more centroids, and one centroid gives one sample: uncertain and diverse at once, meant for a
    model that moves to a new domain. Samples are ranked by entropy, which is also their score (nats).

    Source: Prabhu et al. 2021, "Active Domain Adaptation via Clustering Uncertainty-weighted Embeddings", section 3.2.

    Args:
        temperature: Softens (> 1) or sharpens (< 1) the probabilities before the entropy is taken.

    Raises:
        ConfigError: `temperature` is not a positive number.
    """

    name = "clue"
    needs = frozenset({"probabilities", "features"})

    def __init__(self, *, temperature: float = 1.0) -> None:
        self.temperature = number(self.name, "temperature", temperature, low=1e-3)

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        p = outputs.array("probabilities").astype(np.float64)
        if self.temperature != 1.0:
            # Relative to the largest, so that sharpening cannot underflow a whole row to zero.
            p = (p / p.max(axis=1, keepdims=True)) ** (1.0 / self.temperature)
            p /= p.sum(axis=1, keepdims=True)
        return uncertainty(p, "entropy")

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        scores = self._score(outputs)
        rows = clue_rows(outputs.array("features"), scores, n, generator)
        rows = rows[np.lexsort((outputs.ids[rows], -scores[rows]))]
        return Selection(
            ids=outputs.ids[rows],
            scores=scores[rows],
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=tuple(f"stands for one of {n} uncertain clusters, entropy {s:.3f}" for s in scores[rows]),
        )
