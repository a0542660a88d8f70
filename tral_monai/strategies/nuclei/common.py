# SPDX-License-Identifier: Apache-2.0
"""What the nucleus strategies share: which boxes count, from values of boxes to one of an image, the answer's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.options import number
from tral_monai.strategies.uncertainty import top

Aggregate = Literal["mean", "sum", "max"]
AGGREGATES: tuple[Aggregate, ...] = ("mean", "sum", "max")
Rows = npt.NDArray[np.intp]


class NucleusStrategy(Strategy):
    """A strategy that chooses images (fields of view) by the boxes that detectors found in them.

    Args:
        min_score: Boxes with a lower score are not counted at all.

    Raises:
        ConfigError: `min_score` is no number from 0 to 1.
    """

    task = "nuclei"

    def __init__(self, *, min_score: float = 0.05) -> None:
        self.min_score = number(self.name, "min_score", min_score, low=0.0, high=1.0)

    def counted(self, found: Detections, field: str = "detections", *, once: bool = False) -> Detections:
        """The boxes that count, with only the columns that this strategy uses of `field`.

        Args:
            found: Boxes of a detector.
            field: The field of `PoolOutputs` that they are from.
            once: For counting nuclei. A detector gives a nucleus of uncertain class a box of each class that it may be;
                only the box of the likeliest class is kept. Without probabilities every box is taken for a nucleus.
        """
        columns = {name: getattr(found, name) for name in sorted(self.columns.get(field, ()))}
        slim = Detections(
            offsets=found.offsets, boxes_px=found.boxes_px, labels=found.labels, scores=found.scores, **columns
        )
        mask = np.asarray(found.scores) >= self.min_score
        if once and found.probabilities is not None and len(mask):
            mask &= np.asarray(found.probabilities)[:, 1:].argmax(axis=1) == found.labels
        return slim if mask.all() else slim.keep(mask)


def aggregate(found: Detections, values: npt.NDArray[np.float64], how: Aggregate) -> FloatArray:
    """Mean, sum or maximum of the boxes' `values` (B,) for each image (n,); 0 for an image without a box."""
    if how == "mean":
        return found.mean_per_image(values)
    return found.sum_per_image(values) if how == "sum" else found.max_per_image(values)


def min_per_image(found: Detections, values: npt.NDArray[np.float64], *, empty: float) -> FloatArray:
    """Minimum of the boxes' `values` (B,) for each image (n,); `empty` for an image without a box."""
    return -found.max_per_image(-np.asarray(values, dtype=np.float64), empty=-empty)


def candidate_count(pool: int, n: int, ratio: float) -> int:
    """Candidates that a first stage keeps: `ratio` per sample asked for, rounded up; all of a pool that is smaller."""
    # Rounded first, so that 1.1 * 10 = 11.000000000000002 asks for 11.
    return max(n, min(pool, int(np.ceil(round(ratio * n, 6)))))


def two_stages(
    first: FloatArray, second: FloatArray, n: int, candidates: int, generator: np.random.Generator
) -> tuple[Rows, Rows]:
    """The n rows with the highest `second` (n,) among the `candidates` rows with the highest `first` (n,).

    Returns:
        The rows, and the place that each had among the candidates (0 = first); equal scores fall at random.
    """
    kept = top(first, candidates, generator)
    places = top(second[kept], n, generator)
    return kept[places], places


def answer(outputs: PoolOutputs, rows: Rows, scores: FloatArray, reasons: Sequence[str]) -> Selection:
    """A selection of the pool's `rows`; `scores` are those of the chosen rows, in the same order."""
    return Selection(
        ids=outputs.ids[rows],
        scores=scores,
        class_asked=np.full(len(rows), -1, dtype=np.int64),
        reasons=tuple(reasons),
    )


def nuclei(count: float, kind: str = "") -> str:
    """ "1 known nucleus", "41 nuclei"."""
    noun = "nucleus" if count == 1 else "nuclei"
    return f"{count:g} {kind} {noun}" if kind else f"{count:g} {noun}"
