# SPDX-License-Identifier: Apache-2.0
"""Detections to test on: a few boxes written out, or a seeded pool with everything that any strategy needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import PoolOutputs

K, D = 3, 6


def boxes(counts: Sequence[int], **columns: object) -> Detections:
    """Detections with the given boxes per image; without other columns 10 px boxes of class 0 and score 0.9."""
    total = sum(counts)
    given = {name: np.asarray(value) for name, value in columns.items()}
    given.setdefault("boxes_px", np.tile(np.array([0, 0, 10, 10], dtype=np.float32), (total, 1)))
    given.setdefault("labels", np.zeros(total, dtype=np.int64))
    given.setdefault("scores", np.full(total, 0.9, dtype=np.float32))
    return Detections(offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), **given)  # type: ignore[arg-type]


def generated_pool(n: int = 40, seed: int = 0, *, mean_boxes: float = 6) -> PoolOutputs:
    """A pool with every field that a nucleus strategy may need; images 2 and 5 are without boxes."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(mean_boxes, size=n)
    counts[[2, 5]] = 0
    target = _target(rng, counts)
    auxiliary_counts = rng.poisson(mean_boxes, size=n)
    auxiliary = boxes(
        auxiliary_counts.tolist(),
        boxes_px=_random_boxes(rng, auxiliary_counts.sum()),
        scores=rng.uniform(0.01, 1, auxiliary_counts.sum()).astype(np.float32),
        labels=rng.integers(0, K + 1, auxiliary_counts.sum()),
        logits=rng.normal(size=(auxiliary_counts.sum(), K + 1)).astype(np.float32),
        prototype_distances=rng.uniform(0, 10, (auxiliary_counts.sum(), 2)).astype(np.float32),
    )
    return PoolOutputs(
        ids=rng.permutation(1000)[:n],
        detections=target,
        auxiliary_detections=auxiliary,
        view_detections=tuple(_moved(rng, target) for _ in range(3)),
        noise_detections=tuple(_moved(rng, target) for _ in range(2)),
        predicted_losses=rng.normal(size=n).astype(np.float32),
        features=rng.normal(size=(n, D)).astype(np.float32),
        labelled_features=rng.normal(size=(7, D)).astype(np.float32),
        known_reference=rng.normal(size=(30, D)).astype(np.float32),
        unknown_reference=rng.normal(size=(20, D)).astype(np.float32),
        labelled_class_means=np.array([4.0, 1.0, 0.5]),
        labelled_unknown=20,
        class_names=("tumour", "lymphocyte", "stroma"),
    )


def _target(rng: np.random.Generator, counts: npt.NDArray[np.int64]) -> Detections:
    total = int(counts.sum())
    proposals = _random_boxes(rng, total)
    probabilities = rng.dirichlet(np.full(1 + K, 0.5), size=total).astype(np.float32)
    return boxes(
        counts.tolist(),
        boxes_px=proposals + rng.uniform(-2, 2, (total, 4)).astype(np.float32),
        proposals_px=proposals,
        labels=probabilities[:, 1:].argmax(axis=1),
        scores=probabilities[:, 1:].max(axis=1),
        probabilities=probabilities,
        evidence=rng.gamma(1.0, 5.0, (total, K)).astype(np.float32),
        features=rng.normal(size=(total, D)).astype(np.float32),
    )


def _moved(rng: np.random.Generator, found: Detections) -> Detections:
    """The same images seen again: some boxes lost, the others moved and of other probabilities."""
    kept = found.keep(rng.uniform(size=len(found.scores)) > 0.2)
    total = len(kept.scores)
    probabilities = 0.7 * np.asarray(kept.probabilities) + 0.3 * rng.dirichlet(np.full(1 + K, 0.5), size=total)
    return boxes(
        kept.counts.tolist(),
        boxes_px=kept.boxes_px + rng.uniform(-2, 2, (total, 4)).astype(np.float32),
        labels=probabilities[:, 1:].argmax(axis=1),
        scores=probabilities[:, 1:].max(axis=1),
        probabilities=probabilities,
    )


def _random_boxes(rng: np.random.Generator, total: int) -> npt.NDArray[np.float32]:
    corner = rng.uniform(0, 200, (total, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 30, (total, 2))], axis=1).astype(np.float32)
