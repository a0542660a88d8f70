# SPDX-License-Identifier: Apache-2.0
"""OpenAL for detectors: nuclei near the labelled known ones and far from the unknown, then uncertain images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection
from tral_monai.strategies.geometry import F32, k_means, single_thread
from tral_monai.strategies.nuclei.common import NucleusStrategy, answer, candidate_count, two_stages
from tral_monai.strategies.nuclei.information import location_information
from tral_monai.strategies.options import number, whole
from tral_monai.strategies.registry import register
from tral_monai.strategies.uncertainty import uncertainty

_CHUNK_ROWS = 1 << 10  # features looked at together: they and their products then stay in the processor's cache
_BLOCKS = 4


@register
class OpenAl(NucleusStrategy):
    """Stage 1 keeps the images of the lowest mean s; stage 2 takes those of the highest entropy times LI.

    For each nucleus s = s1 - s2: s1 is the Mahalanobis distance to the labelled known nuclei as one cluster, s2 that to
    the nearest of nine k-means clusters of nuclei ticked unknown. Features are scaled to length 1 and standardised by
    the reference set; distances are squared as in the authors' program, and each is scaled to 0..1 over the pool.

    An image has the mean s of its nuclei; without a box it has s = 1, the worst. Stage 1 keeps `fraction` of the pool,
    but at least `ratio` images per image asked for (with the paper's rounds of 15 % a tenth of the pool would leave
    stage 2 no choice). `Selection.scores` is mean entropy * LI of the target detector; `score` is -s.

    No unknown nucleus labelled yet: s2 = 0, which the reasons say (and s1 = 0 with no known one). Fewer than `clusters`
    unknown ones: as many clusters as there are.

    Source: Qu et al. 2023, "OpenAL"; combined with Eq. 6 as the baseline of OSAL-ND.

    Args:
        fraction: Of the pool that stage 1 keeps.
        ratio: Least number of candidates per image asked for; 1 for the authors' rule.
        clusters: Of the unknown nuclei.
        shrinkage: Weight of the identity in a cluster's covariance, 0 to 1. None takes D / (D + members), D the
            feature width, so that a cluster of few nuclei is nearly round. 0 takes the plain pseudo-inverse, as the
            authors do, which ignores every direction in which a cluster does not vary.
        min_score: Boxes with a lower score are not counted.

    Raises:
        ConfigError: An option is out of range.
    """

    name = "openal"
    needs = frozenset({"detections", "known_reference", "unknown_reference"})
    columns = {  # noqa: RUF012 - read-only by type
        "detections": frozenset({"probabilities", "proposals_px", "features"})
    }

    def __init__(
        self,
        *,
        fraction: float = 0.1,
        ratio: float = 2.0,
        clusters: int = 9,
        shrinkage: float | None = None,
        min_score: float = 0.05,
    ) -> None:
        super().__init__(min_score=min_score)
        self.fraction = number(self.name, "fraction", fraction, low=0.0, high=1.0)
        self.ratio = number(self.name, "ratio", ratio, low=1.0)
        self.clusters = whole(self.name, "clusters", clusters, low=1)
        self.shrinkage = None if shrinkage is None else number(self.name, "shrinkage", shrinkage, low=0.0, high=1.0)

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return -self._openness(outputs, self.counted(outputs.found()))

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        found = self.counted(outputs.found())
        openness = self._openness(outputs, found)
        entropy = found.mean_per_image(uncertainty(np.asarray(found.probabilities), "entropy"))
        location = location_information(found)
        pool = len(openness)
        m = max(candidate_count(pool, n, self.ratio), int(np.ceil(round(self.fraction * pool, 6))))
        rows, places = two_stages(-openness, entropy * location, n, m, generator)
        sides = ("known", "unknown")
        unseen = [side for side in sides if not len(outputs.array(f"{side}_reference"))]
        note = f"no {' and no '.join(unseen)} nucleus labelled yet; " if unseen else ""
        return answer(
            outputs,
            rows,
            (entropy * location)[rows],
            [
                f"{note}candidate {place + 1} of {m} with distance to known less that to unknown {openness[row]:.3f}; "
                f"entropy {entropy[row]:.3f} x location uncertainty {location[row]:.3f}"
                for row, place in zip(rows, places, strict=True)
            ],
        )

    def _openness(self, outputs: PoolOutputs, found: Detections) -> FloatArray:
        features = np.asarray(found.features)
        if not len(features):
            return np.ones(len(found))
        s1 = self._distance(features, outputs.array("known_reference"), 1)
        s2 = self._distance(features, outputs.array("unknown_reference"), self.clusters)
        return found.mean_per_image(s1 - s2, empty=1.0)

    def _distance(self, features: npt.NDArray[Any], reference: npt.NDArray[Any], clusters: int) -> FloatArray:
        if not len(reference):
            return np.zeros(len(features))
        with single_thread():
            distances = reference_distances(features, reference, clusters=clusters, shrinkage=self.shrinkage)
        low, high = distances.min(), distances.max()
        return np.asarray((distances - low) / (high - low) if high > low else np.zeros(len(distances)))


def reference_distances(
    features: npt.NDArray[Any], reference: npt.NDArray[Any], *, clusters: int, shrinkage: float | None = None
) -> FloatArray:
    """Squared Mahalanobis distance (B,) of each row of `features` (B, D) to the nearest cluster of `reference` (m, D).

    Rows are scaled to length 1, then standardised by the reference's mean and deviation. One cluster is the whole
    reference; more come from k-means with a fixed seed, at most as many as there are different rows. Each cluster's
    covariance (of the population) is shrunk towards the identity, see `OpenAl`. Distances come from single precision
    matrix products with the whitening matrices of all clusters, chunk by chunk.
    """
    unit = _unit(reference)
    mean, deviation = unit.mean(axis=0), unit.std(axis=0)
    scale = np.where(deviation > 1e-7, deviation, 1.0)
    standard = ((unit - mean) / scale).astype(np.float32)
    # In one order whatever the ledger's, so that the seeded start of k-means is the same.
    standard = standard[np.lexsort(standard[:, :8].T)]
    k = min(clusters, len(np.unique(standard, axis=0))) if clusters > 1 else 1
    labels = k_means(standard, k, np.random.default_rng(0))[1] if k > 1 else np.zeros(len(standard), dtype=np.int64)
    lower, offsets = [], []
    for cluster in np.unique(labels):
        centre, matrix = whitening(standard[labels == cluster], shrinkage)
        triangle = _lower_triangle(matrix) / scale[:, None]
        # (x - mean) / scale - centre, all in one product: x @ triangle - offset.
        lower.append(triangle.astype(np.float32))
        offsets.append((mean @ triangle + (centre * scale) @ triangle).astype(np.float32))
    blocks = _column_blocks(np.stack(lower), np.stack(offsets))
    out = np.empty(len(features))
    for start in range(0, len(features), _CHUNK_ROWS):
        x = _unit(features[start : start + _CHUNK_ROWS]).astype(np.float32)
        distances = np.zeros((len(x), len(lower)), dtype=np.float32)
        for first, columns, offset in blocks:
            white = x[:, first:] @ columns
            white -= offset
            white = white.reshape(len(x), len(lower), -1)
            distances += np.einsum("bci,bci->bc", white, white)
        out[start : start + _CHUNK_ROWS] = distances.min(axis=1)
    return out


def _lower_triangle(w: FloatArray) -> FloatArray:
    """L (D, D), nothing above its diagonal, with L L^T = W W^T for W (D, r): the same distances, half the products."""
    triangle = np.zeros((len(w), len(w)))
    if w.shape[1]:
        r = np.asarray(np.linalg.qr(w.T, mode="r"))
        triangle[:, : len(r)] = r.T
    return triangle


def _column_blocks(lower: F32, offsets: F32) -> list[tuple[int, F32, F32]]:
    """The clusters' triangles (k, D, D) cut into blocks of columns, side by side: a few wide products per chunk.

    Returns:
        For each block its first column and first row that is not zero, the matrix (D - first, k * columns), and the
        offset (k * columns,).
    """
    width = offsets.shape[1]
    step = -(-width // _BLOCKS)
    out = []
    for first in range(0, width, step):
        matrix = lower[:, first:, first : first + step].transpose(1, 0, 2).reshape(width - first, -1)
        out.append((first, np.ascontiguousarray(matrix), offsets[:, first : first + step].reshape(-1)))
    return out


def whitening(members: F32, shrinkage: float | None) -> tuple[FloatArray, FloatArray]:
    """Centre (D,) of a cluster (m, D), and W (D, r) with |(x - centre) W| the Mahalanobis distance of x."""
    x = members.astype(np.float64)
    centre = x.mean(axis=0)
    m, width = x.shape
    weight = width / (width + m) if shrinkage is None else shrinkage
    covariance = (x - centre).T @ (x - centre) / m
    values, vectors = np.linalg.eigh((1.0 - weight) * covariance + weight * np.eye(width))
    # A pseudo-inverse leaves out directions of no variance; float32 features are exact to some 1e-7 of the largest.
    real = values > max(float(values.max()), 0.0) * 1e-6
    return centre, vectors[:, real] / np.sqrt(values[real])


def _unit(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x: npt.NDArray[np.floating[Any]] = np.asarray(
        features, dtype=np.float32 if features.dtype.itemsize <= 4 else np.float64
    )
    length = np.sqrt(np.einsum("ij,ij->i", x, x))
    return np.asarray(x / np.where(length > 0, length, 1)[:, None])
