# SPDX-License-Identifier: Apache-2.0
"""What tiles gave, as columns that grow batch by batch, before the boxes are joined; and the evidential uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tral_monai.data.nuclei.detections import Detections
from tral_monai.inference.nuclei.tile_plan import IntArray
from tral_monai.strategies.nuclei import information


@dataclasses.dataclass(frozen=True)
class FoundNuclei:
    """Columns of n nuclei that are not joined yet.

    Attributes:
        boxes_px: (n, 4) float32 in pixels of the plan of tiles.
        labels: (n,) int64 classes.
        score: (n,) float32.
        uncertainty: (n,) float32, NaN where not known.
        distances: (n, 2) float32 to the known and the unknown prototype, NaN where not known.
        tiles: (n,) int64, the tile that each was found in.
    """

    boxes_px: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    uncertainty: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]
    tiles: IntArray

    @classmethod
    def nothing(cls) -> FoundNuclei:
        """No nuclei."""
        none = np.empty(0, dtype=np.float32)
        whole = np.empty(0, dtype=np.int64)
        return cls(none.reshape(0, 4), whole, none, none, none.reshape(0, 2), whole)

    @classmethod
    def concatenate(cls, parts: Sequence[FoundNuclei]) -> FoundNuclei:
        """The nuclei of several parts, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def keep(self, which: npt.NDArray[np.bool_] | IntArray) -> FoundNuclei:
        """Some of them, by a mask or by their numbers."""
        names = [field.name for field in dataclasses.fields(self)]
        return FoundNuclei(**{name: getattr(self, name)[which] for name in names})

    def of_tile_order(self) -> FoundNuclei:
        """The same, whatever the order in which the tiles were read."""
        return self.keep(np.argsort(self.tiles, kind="stable"))


def evidential_uncertainty(detections: Detections) -> npt.NDArray[np.float32]:
    """Eq. 4 of OSAL-ND: u = K / Q with Q the sum of (evidence + 1) over the K classes.

    Args:
        detections: B boxes, with ``evidence`` or without.

    Returns:
        (B,) float32, above 0 and at most 1; NaN without evidence.
    """
    if detections.evidence is None:
        return np.full(len(detections.labels), np.nan, dtype=np.float32)
    return information.evidential_uncertainty(detections.evidence).astype(np.float32)
