# SPDX-License-Identifier: Apache-2.0
"""A tissue map: the class of every tile of a slide, where the tiles lie, and the areas that follow from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.map_grid import MapGrid

_UM2_PER_MM2 = 1e6
_MOST_CENTRES_LISTED = 10_000  # the class map marks all of them
_MOST_MESSAGES_LISTED = 100


@dataclasses.dataclass(frozen=True)
class TissueMap:
    """The result of one slide. One pixel per tile, no smoothing.

    Attributes:
        class_index: (rows, columns) uint8, values of ``classes``.
        confidence: (rows, columns) float16, the probability of the class shown, of an undefined tile the largest
            probability; NaN where the model did not look (background, not analysed).
        probabilities: (rows, columns, C) float16 in the order of ``classes.model_classes``, NaN where the model did
            not look; None unless asked for, because it grows with the slide.
        classes: what the values mean.
        grid: where the pixels lie on the slide.
        mpp_xy: micrometres per level-0 pixel in x and y.
        failed_centres_level0: (k, 2) int64 centres of the tiles that could not be decoded.
        failures: what the reader said about them, each message once.
        seconds: wall-clock seconds by stage (``mask``, ``model``, ``wait_for_pixels``, ``total``).
        computed: what the network was asked for, where it was not all of every tile (early exit).
    """

    class_index: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float16]
    probabilities: npt.NDArray[np.float16] | None
    classes: MapClasses
    grid: MapGrid
    mpp_xy: tuple[float, float]
    failed_centres_level0: npt.NDArray[np.int64]
    failures: tuple[str, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    computed: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def tissue_tiles(self) -> int:
        """Number of tiles with tissue, analysed or not."""
        return int(np.count_nonzero(~np.isnan(self.confidence))) + len(self.failed_centres_level0)

    def tile_counts(self) -> dict[str, int]:
        """Number of tiles of every class of the map, absent ones with 0."""
        counts = np.bincount(self.class_index.ravel(), minlength=len(self.classes))
        return dict(zip(self.classes.names, counts.tolist(), strict=True))

    def areas_mm2(self) -> dict[str, float]:
        """Area inside the slide of every class of the map, mm2. The sum is the slide's area."""
        areas_px = np.bincount(
            self.class_index.ravel(), weights=self.grid.cell_areas_px().ravel(), minlength=len(self.classes)
        )
        scale = self.mpp_xy[0] * self.mpp_xy[1] / _UM2_PER_MM2
        return {name: float(area * scale) for name, area in zip(self.classes.names, areas_px, strict=True)}

    def describe(self) -> dict[str, Any]:
        """What a provenance file tells about the map, as plain data."""
        failed = self.failed_centres_level0
        return {
            "map": {
                "rows": self.class_index.shape[0],
                "columns": self.class_index.shape[1],
                "step_level0": self.grid.step_level0,
                "classes": list(self.classes.names),
            },
            "tissue_tiles": self.tissue_tiles,
            "tissue_mm2": self.tissue_mm2(),
            "tiles": self.tile_counts(),
            "areas_mm2": self.areas_mm2(),
            "not_analysed": {
                "tiles": len(failed),
                "centres_level0": failed[:_MOST_CENTRES_LISTED].tolist(),
                "messages": list(self.failures[:_MOST_MESSAGES_LISTED]),
            },
            **({"computed": self.computed} if self.computed else {}),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }

    def tissue_mm2(self) -> float:
        """Area of the tiles with tissue, whatever the model made of them, mm2."""
        looked = ~np.isnan(self.confidence) | (self.class_index == self.classes.not_analysed)
        area_px = int(self.grid.cell_areas_px()[looked].sum())
        return area_px * self.mpp_xy[0] * self.mpp_xy[1] / _UM2_PER_MM2
