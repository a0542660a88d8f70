# SPDX-License-Identifier: Apache-2.0
"""What a detector found in many images, as plain arrays: the form that strategies, metrics and writers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import StrategyError

FloatArray = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

_WIDTH_2D = ("boxes_px", "proposals_px", "probabilities", "evidence", "logits", "features", "prototype_distances")


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections:
    """Boxes of n images, ragged: image i owns rows ``offsets[i]:offsets[i + 1]``; B rows in all.

    Args:
        offsets: (n + 1,) int64, from 0 to B, never falling.
        boxes_px: (B, 4) xmin, ymin, xmax, ymax in pixels of the image that the detector saw.
        labels: (B,) class of each box, 0 to K - 1 (background is not counted).
        scores: (B,) score of that class, 0 to 1.
        probabilities: (B, 1 + K) column 0 is background; rows sum to 1.
        proposals_px: (B, 4) the region proposal that each box was regressed from.
        evidence: (B, K) evidence for each class, 0 or more.
        logits: (B, K) raw activations of the classes.
        features: (B, D) RoI features.
        prototype_distances: (B, 2) Euclidean distances of the RoI's embedding to the known and the unknown prototype.

    Raises:
        StrategyError: The offsets do not fit, or columns differ in length.
    """

    offsets: IntArray
    boxes_px: FloatArray
    labels: IntArray
    scores: FloatArray
    probabilities: FloatArray | None = None
    proposals_px: FloatArray | None = None
    evidence: FloatArray | None = None
    logits: FloatArray | None = None
    features: FloatArray | None = None
    prototype_distances: FloatArray | None = None

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.int64)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.int64))
        if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise StrategyError("Detections.offsets must start at 0 and never fall, one more than there are images.")
        for name, value in self.columns().items():
            if len(value) != offsets[-1]:
                raise StrategyError(f"Detections.{name} has {len(value)} rows, but the offsets end at {offsets[-1]}.")
            if value.ndim != (2 if name in _WIDTH_2D else 1):
                raise StrategyError(f"Detections.{name} has {value.ndim} dimensions: shape {value.shape}.")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> IntArray:
        """(n,) boxes of each image."""
        return np.diff(self.offsets)

    @property
    def image_of_box(self) -> IntArray:
        """(B,) image of each box."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns that are there, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "offsets")
        return {name: np.asarray(value) for name, value in pairs if value is not None}

    def of_image(self, image: int) -> Detections:
        """The boxes of one image."""
        return self.take_images(np.array([image]))

    def take_images(self, images: npt.NDArray[Any] | Sequence[int]) -> Detections:
        """The same for some images, in the given order."""
        images = np.asarray(images, dtype=np.int64)
        counts = self.counts[images]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offsets[images] - offsets[:-1], counts) + np.arange(offsets[-1])
        return replace(self, offsets=offsets, **{name: value[rows] for name, value in self.columns().items()})

    def keep(self, mask: npt.NDArray[np.bool_]) -> Detections:
        """The same with only some of the boxes: ``mask`` (B,)."""
        counts = np.bincount(self.image_of_box[mask], minlength=len(self))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return replace(self, offsets=offsets, **{name: value[mask] for name, value in self.columns().items()})

    def sum_per_image(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Sums of ``values`` (B,) over the boxes of each image (n,); 0 for an image without a box."""
        weights = np.asarray(values, dtype=np.float64)
        return np.bincount(self.image_of_box, weights=weights, minlength=len(self)).astype(np.float64)

    def mean_per_image(self, values: npt.NDArray[Any], *, empty: float = 0.0) -> npt.NDArray[np.float64]:
        """Means of ``values`` (B,) over the boxes of each image (n,); ``empty`` for an image without a box."""
        counts = self.counts
        means = self.sum_per_image(values) / np.maximum(counts, 1)
        return np.where(counts > 0, means, empty)

    def max_per_image(self, values: npt.NDArray[Any], *, empty: float = 0.0) -> npt.NDArray[np.float64]:
        """Maxima of ``values`` (B,) over the boxes of each image (n,); ``empty`` for an image without a box."""
        out = np.full(len(self), empty, dtype=np.float64)
        some = self.counts > 0
        if some.any():
            out[some] = np.maximum.reduceat(np.asarray(values, dtype=np.float64), self.offsets[:-1][some])
        return out


def concatenate(parts: Sequence[Detections]) -> Detections:
    """The images of several parts, one after the other.

    Raises:
        StrategyError: There is no part, or the parts have different columns.
    """
    if not parts:
        raise StrategyError("There are no detections to concatenate.")
    names = list(parts[0].columns())
    if any(list(part.columns()) != names for part in parts):
        raise StrategyError("Detections of different columns cannot be concatenated.")
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.counts for part in parts]))])
    columns = {name: np.concatenate([part.columns()[name] for part in parts]) for name in names}
    return Detections(offsets=offsets, **columns)
