# SPDX-License-Identifier: Apache-2.0
"""What annotating nuclei costs, in boxes and in minutes, and the area under a learning curve on every cost axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError
from tral_monai.metrics.learning_curve import area_under_learning_curve


@dataclass(frozen=True)
class AnnotationTime:
    """Annotator time: ``seconds_per_image + seconds_per_box * boxes + seconds_per_class * known nuclei`` per image.

    Every nucleus is boxed, whatever it is; only known ones are given a class, and the tick "unknown" is part of drawing
    the box. The figures are assumptions, to be replaced by a lab's own: conclusions that hang on them should be checked
    over a range.

    Args:
        seconds_per_image: to open an image and look around.
        seconds_per_box: to draw a box; 7 s is what Papadopoulos et al. 2017 ("Extreme clicking for efficient object
            annotation") measured for boxes from four extreme points in photographs.
        seconds_per_class: to say the class of a known nucleus.

    Raises:
        ConfigError: a time is negative or not finite.
    """

    seconds_per_image: float = 10.0
    seconds_per_box: float = 7.0
    seconds_per_class: float = 2.0

    def __post_init__(self) -> None:
        for name in ("seconds_per_image", "seconds_per_box", "seconds_per_class"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise ConfigError(f"{name} must be 0 or more, but is {value}")

    def minutes(self, boxes: npt.ArrayLike, known: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Minutes for each image.

        Args:
            boxes: (n,) boxes drawn in each image.
            known: (n,) of them that were given a class.
        """
        seconds = (
            self.seconds_per_image
            + self.seconds_per_box * np.asarray(boxes, dtype=np.float64)
            + self.seconds_per_class * np.asarray(known, dtype=np.float64)
        )
        return np.asarray(seconds / 60.0, dtype=np.float64)


COST_AXES = ("images", "boxes_drawn", "minutes")
"""The axes of a learning curve, by the names of a run's summary."""


def areas_under_learning_curve(
    costs: Any, score: npt.ArrayLike, *, cost_ranges: dict[str, tuple[float, float]] | None = None
) -> dict[str, float]:
    """Mean score over the budget, on each of the three axes.

    Args:
        costs: table or mapping with the columns ``images``, ``boxes_drawn`` and ``minutes``, (r,) each.
        score: (r,) the score of each round, such as mAP.
        cost_ranges: range of each axis to take, which runs that are compared must share; all of it where not given.

    Returns:
        ``{"images": ..., "boxes_drawn": ..., "minutes": ...}`` in the unit of the score.

    Raises:
        ConfigError: an axis is missing, or see :func:`~tral_monai.metrics.learning_curve.area_under_learning_curve`.
    """
    missing = [axis for axis in COST_AXES if axis not in costs]
    if missing:
        raise ConfigError(f"a learning curve needs the cost axes {list(COST_AXES)}, but {missing} are missing")
    ranges = cost_ranges or {}
    return {
        axis: area_under_learning_curve(np.asarray(costs[axis]), score, cost_range=ranges.get(axis))
        for axis in COST_AXES
    }
