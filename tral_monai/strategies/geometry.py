# SPDX-License-Identifier: Apache-2.0
"""Distances, greedy covering and weighted k-means on feature vectors, shared by the diversity strategies.

All of it runs on one thread: the order in which threads add up floating point numbers changes results in the last bits,
and with them, now and then, a choice. The same inputs must give the same choice on any machine size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

_CHUNK = 1 << 24  # distances held at once: 64 MiB of float32
_BLOCK_ROWS = 256  # of the greedy cover: fewer rows per block waste less, more cost fewer calls


@contextmanager
def single_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread within the block."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def centred(features: npt.NDArray[Any], *others: npt.NDArray[Any]) -> tuple[F32, ...]:
    """Features (n, D), and others of the same width, as float32 with the mean of the first taken off.

    Distances do not change, but |x|^2 - 2xy + |y|^2 then loses no digits to a large common offset.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    # Straight into float32: a double-precision copy of a large pool's features would be gigabytes.
    return tuple(
        np.subtract(a, mean, out=np.empty(a.shape, dtype=np.float32), casting="same_kind") for a in (features, *others)
    )


def squared_to_nearest(x: F32, y: F32) -> F32:
    """Squared Euclidean distance of each row of x (n, D) to its nearest row of y (m, D), m >= 1 -> (n,)."""
    x2, y2 = _norms(x), _norms(y)
    step = max(1, _CHUNK // max(len(y), 1))
    nearest = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        nearest[part] = (y2 - 2.0 * (x[part] @ y.T)).min(axis=1) + x2[part]
    return np.maximum(nearest, 0.0)


def greedy_cover(x: F32, k: int, nearest: F32 | None) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Greedy k-centre: again and again the row farthest from all that was taken.

    Distances only fall, so a block of rows is brought up to date only when its last known maximum is the highest of
    all; by then several picks have come together, and one matrix product takes them all. The choice is that of the
    plain algorithm, which updates every row at every pick.

    Args:
        x: (n, D) centred features.
        k: Rows to take, at most n.
        nearest: (n,) squared distance to what is covered already; None starts at the row nearest the mean.

    Returns:
        Rows in order of choice, and the Euclidean distance of each to the nearest earlier one (0 for a free start).
    """
    x2 = _norms(x)
    distance = np.full(len(x), np.inf, dtype=np.float32) if nearest is None else nearest.copy()
    starts = np.arange(0, len(x), _BLOCK_ROWS)
    highest = np.maximum.reduceat(distance, starts)  # of each block, when it was last brought up to date
    taken = np.zeros(len(starts), dtype=np.intp)  # picks that each block knows of
    rows, radii = np.empty(k, dtype=np.intp), np.empty(k)
    for j in range(k):
        if nearest is None and j == 0:
            rows[j], radii[j] = int(np.argmin(x2)), 0.0
        else:
            # The first of equal maxima, so that of equally far rows the first is taken.
            while taken[block := int(np.argmax(highest))] < j:
                part = slice(starts[block], starts[block] + _BLOCK_ROWS)
                new = rows[taken[block] : min(j, taken[block] + _BLOCK_ROWS)]
                to_new = (x2[new] - 2.0 * (x[part] @ x[new].T)).min(axis=1) + x2[part]
                np.minimum(distance[part], np.maximum(to_new, 0.0), out=distance[part])
                taken[block] += len(new)
                highest[block] = distance[part].max()
            part = slice(starts[block], starts[block] + _BLOCK_ROWS)
            rows[j] = starts[block] + int(np.argmax(distance[part]))
            radii[j] = np.sqrt(max(float(distance[rows[j]]), 0.0))
        distance[rows[j]] = -1.0  # never twice, not even among identical features
    return rows, radii


def k_means(
    x: F32, k: int, generator: np.random.Generator, *, weights: npt.NDArray[np.float64] | None = None
) -> tuple[F32, npt.NDArray[np.int64]]:
    """k-means of x (n, D), k <= n -> centroids (k, D) and the cluster of each row (n,).

    Weighted by `weights` (n,) >= 0; all zero means unweighted. Where one pass takes more than 2e9 multiplications
    (n k D; tenths of a second) mini-batches are used, which are somewhat less exact and many times faster.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    seed = int(generator.integers(2**31 - 1))
    if weights is not None and not (weights > 0).any():
        weights = None
    if weights is not None and (weights > 0).sum() < k:
        # k-means++ cannot seed k clusters from fewer weighted rows: give the others a trace.
        weights = weights + weights.max() * 1e-6
    big = x.size * k > 2_000_000_000
    model = (
        MiniBatchKMeans(k, n_init=1, batch_size=max(4096, 2 * k), init_size=max(1000, 4 * k), random_state=seed)
        if big
        else KMeans(k, n_init=1, max_iter=100, random_state=seed)
    )
    labels = model.fit_predict(x, sample_weight=weights).astype(np.int64)
    return model.cluster_centers_.astype(np.float32), labels


def nearest_rows(x: F32, centres: F32) -> Rows:
    """For each centre (k, D) in turn the nearest row of x (n, D) that no earlier centre took; k <= n."""
    x2 = _norms(x)
    free = np.ones(len(x), dtype=bool)
    rows = np.empty(len(centres), dtype=np.intp)
    step = max(1, _CHUNK // max(len(x), 1))
    for start in range(0, len(centres), step):
        block = x2 - 2.0 * (centres[start : start + step] @ x.T)
        for j, distance in enumerate(block, start=start):
            rows[j] = int(np.argmin(np.where(free, distance, np.inf)))
            free[rows[j]] = False
    return rows


def _norms(x: F32) -> F32:
    return np.asarray(np.einsum("ij,ij->i", x, x), dtype=np.float32)
