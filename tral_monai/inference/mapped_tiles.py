# SPDX-License-Identifier: Apache-2.0
"""Some tiles of a slide with what the network made of them: what is streamed while a slide is being mapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class MappedTiles:
    """The k tiles of one block. Every tile of a slide comes once, in an order that depends on the slide only.

    Attributes:
        rows: (k,) int64 rows of the map.
        columns: (k,) int64 columns of the map.
        centres_level0: (k, 2) int64 centres (x, y) in level-0 px.
        probabilities: (k, C) float32.
        features: (k, F) float32 pooled features, None where nobody asked for them.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    centres_level0: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32] | None = None


OnTiles = Callable[[MappedTiles], None]
