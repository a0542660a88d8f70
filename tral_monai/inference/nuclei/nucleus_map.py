# SPDX-License-Identifier: Apache-2.0
"""The nuclei of one field or slide: a box for each with class, score, uncertainty and distances, as plain columns."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError
from tral_monai.inference.palette import Rgb

FloatColumn = npt.NDArray[np.float32]
_MOST_LISTED = 10_000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NucleusMap:
    """The result of one image: n nuclei.

    Attributes:
        boxes_level0: (n, 4) float32 xmin, ymin, xmax, ymax in level-0 px, inside of the image.
        labels: (n,) int64 class of each nucleus, an index into ``classes``.
        score: (n,) float32 score of that class, 0 to 1.
        uncertainty: (n,) float32, K / Q (Eq. 4 of OSAL-ND): 1 without any evidence, near 0 with much; NaN where the
            detector has no evidential head.
        distance_known: (n,) float32 distance of the nucleus' embedding in the auxiliary detector to its prototype of
            known nuclei; NaN without one.
        distance_unknown: (n,) float32 the same for unknown nuclei.
        classes: names of the classes, in the detector's order.
        colours: colour of every class.
        dimensions: (width, height) of the image, level-0 px.
        mpp_xy: micrometres per level-0 pixel in x and y.
        analysed_mm2: area looked at: of tissue where a tissue mask was used, else of the image.
        masked: whether a tissue mask was used.
        tiles: number of tiles looked at, with those that could not be decoded.
        failed_centres_level0: (k, 2) int64 centres of the tiles that could not be decoded.
        not_analysed_mm2: area that these tiles answer for: of tissue where a tissue mask was used, else of the image.
        not_analysed_level0: (k, 4) float64 xmin, ymin, xmax, ymax of the parts that these tiles answer for, level-0 px.
        failures: what the reader said about them, each message once.
        cut_by_seams: nuclei kept that no tile saw whole, because they are larger than the overlap.
        warnings: what a reader of the result should know, one sentence each.
        seconds: wall-clock seconds by stage (``mask``, ``model``, ``wait_for_pixels``, ``join``, ``total``).

    Raises:
        ConfigError: columns differ in length, or a column holds what it must not.
    """

    boxes_level0: FloatColumn
    labels: npt.NDArray[np.int64]
    score: FloatColumn
    uncertainty: FloatColumn
    distance_known: FloatColumn
    distance_unknown: FloatColumn
    classes: tuple[str, ...]
    colours: dict[str, Rgb]
    dimensions: tuple[int, int]
    mpp_xy: tuple[float, float]
    analysed_mm2: float
    masked: bool = False
    tiles: int = 0
    failed_centres_level0: npt.NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.empty((0, 2), dtype=np.int64)
    )
    not_analysed_level0: npt.NDArray[np.float64] = dataclasses.field(
        default_factory=lambda: np.empty((0, 4), dtype=np.float64)
    )
    not_analysed_mm2: float = 0.0
    failures: tuple[str, ...] = ()
    cut_by_seams: int = 0
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boxes_level0.shape != (len(self), 4):
            raise ConfigError(f"boxes_level0 must have shape ({len(self)}, 4), but has {self.boxes_level0.shape}")
        for name in ("labels", "score", "uncertainty", "distance_known", "distance_unknown"):
            column = getattr(self, name)
            if column.shape != (len(self),):
                raise ConfigError(f"{name} must have shape ({len(self)},), one per nucleus, but has {column.shape}")
            if np.isinf(column).any():
                raise ConfigError(f"{name} holds infinity; give NaN where a value is not known")
        if not (np.isfinite(self.boxes_level0).all() and np.isfinite(self.score).all()):
            raise ConfigError("every nucleus needs a box and a score of finite numbers, but some hold NaN or infinity")
        if len(self) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ConfigError(f"labels must lie between 0 and {len(self.classes) - 1}, but reach {self.labels.max()}")
        missing = [name for name in self.classes if name not in self.colours]
        if missing:
            raise ConfigError(f"colours must have every class, but lack {missing}")

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[str, int]:
        """Number of nuclei of every class, absent ones with 0."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def per_mm2(self) -> dict[str, float | None]:
        """Nuclei of every class per mm2 looked at; None where nothing was."""
        area = self.analysed_mm2
        return {name: count / area if area > 0 else None for name, count in self.counts().items()}

    def describe(self) -> dict[str, Any]:
        """What a provenance file tells about the nuclei, as plain data."""
        failed = self.failed_centres_level0
        return {
            "nuclei": len(self),
            "nuclei_of_class": self.counts(),
            "nuclei_per_mm2": {n: None if d is None else round(d, 3) for n, d in self.per_mm2().items()},
            "analysed_mm2": self.analysed_mm2,
            "analysed": "tissue" if self.masked else "whole image",
            "tiles": self.tiles,
            "cut_by_seams": self.cut_by_seams,
            "not_analysed": {
                "tiles": len(failed),
                "mm2": self.not_analysed_mm2,
                "centres_level0": failed[:_MOST_LISTED].tolist(),
                "messages": list(self.failures[:100]),
            },
            "warnings": list(self.warnings),
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
        }
