# SPDX-License-Identifier: Apache-2.0
"""The part of a slide that a mapper looks at, so that what it finds there is what it finds on the whole slide."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError

Rectangle = tuple[int, int, int, int]
"""(x, y, width, height) in level-0 px."""


@dataclasses.dataclass(frozen=True)
class SlideWindow:
    """A rectangle of a slide. Where it reaches the slide's border it goes on beyond it.

    A tile at the border may have its centre outside of the slide, and is part of the slide's map all the same.

    Args:
        region_level0: (x, y, width, height) in level-0 px; None is the whole slide.
        dimensions: (width, height) of the slide, level-0 px.

    Raises:
        ConfigError: the rectangle is empty, or lies outside of the slide.
    """

    region_level0: Rectangle | None
    dimensions: tuple[int, int]

    def __post_init__(self) -> None:
        if self.region_level0 is None:
            return
        x, y, width, height = self.region_level0
        if width < 1 or height < 1:
            raise ConfigError(f"a region must be at least 1 x 1 px, but is {width} x {height}")
        if x >= self.dimensions[0] or y >= self.dimensions[1] or x + width <= 0 or y + height <= 0:
            raise ConfigError(
                f"the region of {width} x {height} px at ({x}, {y}) lies outside of the slide, which has "
                f"{self.dimensions[0]} x {self.dimensions[1]} px; give level-0 coordinates"
            )

    @property
    def bounds_level0(self) -> tuple[float, float, float, float]:
        """xmin, ymin, xmax, ymax, infinite where the window reaches the slide's border; the maximum is exclusive."""
        if self.region_level0 is None:
            return -math.inf, -math.inf, math.inf, math.inf
        x, y, width, height = self.region_level0
        return (
            -math.inf if x <= 0 else x,
            -math.inf if y <= 0 else y,
            math.inf if x + width >= self.dimensions[0] else x + width,
            math.inf if y + height >= self.dimensions[1] else y + height,
        )

    def holds(self, points_level0: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which points lie inside.

        Args:
            points_level0: (n, 2) x, y in level-0 px.

        Returns:
            (n,) bool.
        """
        low, high = np.array(self.bounds_level0[:2]), np.array(self.bounds_level0[2:])
        return np.asarray(((points_level0 >= low) & (points_level0 < high)).all(axis=1))

    def overlaps(
        self, boxes_level0: npt.NDArray[Any], margin_level0: float = 0.0
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Which boxes the window, made wider by a margin, overlaps, and by how much without the margin.

        Args:
            boxes_level0: (n, 4) xmin, ymin, xmax, ymax in level-0 px.
            margin_level0: added on all sides.

        Returns:
            (n,) bool, and (n,) float64 area of what the boxes and the window share, level-0 px squared.
        """
        low, high = np.array(self.bounds_level0[:2]), np.array(self.bounds_level0[2:])
        starts, ends = boxes_level0[:, :2], boxes_level0[:, 2:]
        near = ((starts < high + margin_level0) & (ends > low - margin_level0)).all(axis=1)
        sides = np.maximum(np.minimum(ends, high) - np.maximum(starts, low), 0)
        return np.asarray(near), np.asarray(sides.prod(axis=1), dtype=np.float64)
