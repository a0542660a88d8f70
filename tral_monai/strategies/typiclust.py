# SPDX-License-Identifier: Apache-2.0
"""TypiClust: a first query without any model, from features alone."""

from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.geometry import F32, centred, k_means, single_thread
from tral_monai.strategies.options import whole
from tral_monai.strategies.registry import register


@register
class TypiClust(Strategy):
    """The most typical sample of each cluster, clusters without labels first, large before small.

    Typicality is the inverse of the mean distance to the nearest neighbours. k-means runs on pool and labelled samples
    together, with one cluster per sample labelled or asked for, at most `max_clusters`. For the cold start: it needs
    only features of a pretrained backbone. `Selection.scores` is the typicality within the cluster; `score` the
    typicality within the whole pool.

    Source: Hacohen et al. 2022, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
    algorithm 1 (TPC_RP).

    Args:
        neighbours: Neighbours over which the distance is averaged.
        max_clusters: Upper limit of clusters.
        min_cluster_size: Smaller clusters come last: they are outliers rather than types.

    Raises:
        ConfigError: An option is not a whole number of at least 1.
    """

    name = "typiclust"
    needs = frozenset({"features"})
    wants = frozenset({"labelled_features"})

    def __init__(self, *, neighbours: int = 20, max_clusters: int = 500, min_cluster_size: int = 5) -> None:
        self.neighbours = whole(self.name, "neighbours", neighbours, low=1)
        self.max_clusters = whole(self.name, "max_clusters", max_clusters, low=1)
        self.min_cluster_size = whole(self.name, "min_cluster_size", min_cluster_size, low=1)

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        (x,) = centred(outputs.array("features"))
        with single_thread():
            return typicality(x, self.neighbours)

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        labelled = outputs.labelled_features
        m = 0 if labelled is None else len(labelled)
        parts = centred(outputs.array("features"), *([labelled] if labelled is not None and m else []))
        x = np.concatenate(parts)
        pool = len(outputs.ids)
        k = min(m + n, self.max_clusters, len(x))
        with single_thread():
            _, clusters = k_means(x, k, generator)
            queues: list[list[tuple[float, int]]] = []
            for c in range(k):
                members = np.flatnonzero(clusters == c)
                typical = typicality(x[members], self.neighbours)
                order = np.lexsort((members, -typical))
                queues.append([(float(typical[i]), int(members[i])) for i in order if members[i] < pool])
        size = np.bincount(clusters, minlength=k)
        count = np.bincount(clusters[pool:], minlength=k)
        picks, reasons = [], []
        for _ in range(n):
            c = min(
                (c for c in range(k) if queues[c]),
                key=lambda c: (size[c] < self.min_cluster_size, count[c], -size[c], queues[c][0][1]),
            )
            picks.append(queues[c].pop(0))
            reasons.append(f"most typical of a cluster of {size[c]} samples with {count[c]} labelled")
            count[c] += 1
        rows = np.array([row for _, row in picks], dtype=np.intp)
        return Selection(
            ids=outputs.ids[rows],
            scores=np.array([value for value, _ in picks]),
            class_asked=np.full(n, -1, dtype=np.int64),
            reasons=tuple(reasons),
        )


def typicality(x: F32, neighbours: int) -> FloatArray:
    """1 / mean distance to the nearest neighbours of each row of x (n, D) -> (n,); 0 for a row that is alone.

    Identical rows, whose distance is 0, get a large finite value.
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(neighbours, len(x) - 1)
    if k < 1:
        return np.zeros(len(x))
    distances, _ = NearestNeighbors(n_neighbors=k).fit(x).kneighbors()
    return np.asarray(1.0 / (distances.mean(axis=1, dtype=np.float64) + 1e-5))
