# SPDX-License-Identifier: Apache-2.0
"""Core-set selection of images: cover the feature space so that no image lies far from a labelled one."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.geometry import F32, greedy_cover, single_thread, squared_to_nearest
from tral_monai.strategies.nuclei.common import answer
from tral_monai.strategies.registry import register


@register
class Coreset(Strategy):
    """Greedy k-centre on L2-normalised image features: each pick is the image farthest from all labelled and picked.

    The image feature is what the round brings: the pooled FPN levels P2 to P5 one after the other, or the mean RoI
    feature. Without labelled images the first pick is the one nearest the mean. `Selection.scores` is the Euclidean
    distance (0 to 2) to the nearest labelled or earlier picked image; `score` that to the nearest labelled image (to
    the mean where nothing is labelled). No detections are looked at; no randomness.

    Source: Sener & Savarese 2018, algorithm 1 (k-Center-Greedy).
    """

    name = "coreset"
    task = "nuclei"
    needs = frozenset({"features"})
    wants = frozenset({"labelled_features"})

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        x, *labelled = _unit_rows(outputs)
        with single_thread():
            squared = squared_to_nearest(x, labelled[0] if labelled else np.zeros((1, x.shape[1]), dtype=np.float32))
        return np.sqrt(squared, dtype=np.float64)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        x, *labelled = _unit_rows(outputs)
        with single_thread():
            rows, radii = greedy_cover(x, n, squared_to_nearest(x, labelled[0]) if labelled else None)
        return answer(
            outputs,
            rows,
            radii,
            [
                f"pick {k} of {n}: distance {r:.3g} to the nearest labelled or picked image"
                for k, r in enumerate(radii, 1)
            ],
        )


def _unit_rows(outputs: PoolOutputs) -> tuple[F32, ...]:
    """Features and, where there are some, labelled features: rows of length 1 less the mean of the first, float32.

    One copy of the features in memory, normalised and centred in place; a row of zeros stays as it is.
    """
    labelled = outputs.labelled_features
    parts = [outputs.array("features"), *([labelled] if labelled is not None and len(labelled) else [])]
    unit = []
    for part in parts:
        x = np.array(part, dtype=np.float32)
        length = np.sqrt(np.einsum("ij,ij->i", x, x))
        x /= np.where(length > 0, length, 1)[:, None]
        unit.append(x)
    mean = unit[0].mean(axis=0, dtype=np.float64).astype(np.float32)
    for x in unit:
        x -= mean
    return tuple(unit)
