# SPDX-License-Identifier: Apache-2.0
"""Core-set selection: cover the feature space so that no sample lies far from a labelled one."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.geometry import F32, centred, greedy_cover, single_thread, squared_to_nearest
from tral_monai.strategies.registry import register


@register
class KCenter(Strategy):
    """Greedy k-centre: each pick is the sample farthest from all labelled and picked ones.

    Starts from the labelled samples' features, or, where nothing is labelled, from the sample nearest the mean. One
    matrix-vector product per pick: time O(n D) per sample chosen, memory O(n D). `Selection.scores` is the Euclidean
    distance to the nearest labelled or earlier pick; `score` the distance to the nearest labelled sample (to the mean,
    where nothing is labelled). No randomness.

    Source: Sener & Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
    algorithm 1 (k-Center-Greedy).
    """

    name = "kcenter"
    needs = frozenset({"features"})
    wants = frozenset({"labelled_features"})

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        x, *labelled = _split(outputs)
        with single_thread():
            squared = squared_to_nearest(x, labelled[0] if labelled else np.zeros((1, x.shape[1]), dtype=np.float32))
        return np.sqrt(squared, dtype=np.float64)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        x, *labelled = _split(outputs)
        with single_thread():
            rows, radii = greedy_cover(x, n, squared_to_nearest(x, labelled[0]) if labelled else None)
        return Selection(
            ids=outputs.ids[rows],
            scores=radii,
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=tuple(f"distance {r:.3g} to the nearest labelled or chosen sample" for r in radii),
        )


def _split(outputs: PoolOutputs) -> tuple[F32, ...]:
    labelled = outputs.labelled_features
    return centred(outputs.array("features"), *([labelled] if labelled is not None and len(labelled) else []))
