# SPDX-License-Identifier: Apache-2.0
"""Magnification to level: the one place where micrometres per pixel choose what is read and whether it is resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tral_monai.errors import ConfigError

MAGNIFICATIONS = (40.0, 10.0, 2.5)
"""The paper's three magnifications, finest first: 0.25, 1 and 4 um per pixel."""

TILE_PX = 128
"""Side of the paper's tiles in pixels, at every magnification."""

MPP_AT_1X = 10.0
"""Micrometres per pixel times magnification: 40x is 0.25 um per pixel."""

FIT_TOLERANCE = 0.01
"""A level is used as it is when its resolution is within 1 % of the one asked for."""


def magnification_to_mpp(magnification: float) -> float:
    """Return micrometres per pixel at a magnification (40 -> 0.25).

    Raises:
        ConfigError: The magnification is not a positive number.
    """
    if not (math.isfinite(magnification) and magnification > 0):
        raise ConfigError(f"a magnification must be a positive number (40 is 0.25 um per pixel), got {magnification}")
    return MPP_AT_1X / magnification


def mpp_to_magnification(mpp: float) -> float:
    """Return the magnification at a number of micrometres per pixel (0.25 -> 40)."""
    return MPP_AT_1X / mpp


def level0_per_tile(mpp: float, magnification: float = 40.0, tile_px: int = TILE_PX) -> float:
    """Return how many level-0 pixels one tile covers: the step of a grid of tiles that touch.

    Args:
        mpp: Micrometres per level-0 pixel of the slide.
        magnification: Magnification of the tile.
        tile_px: Side of the tile in pixels at that magnification.

    Returns:
        Level-0 pixels, 128 for a 128 px tile at 40x of a slide with 0.25 um per pixel.
    """
    return tile_px * magnification_to_mpp(magnification) / mpp


def level_downsamples(dimensions: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Return how many level-0 pixels a pixel of each level covers.

    A scanner that halves an odd width drops or adds a column, so 4443 / 2221 = 2.0005 means 2. A factor is taken as the
    integer n when both sides of the level are floor or ceil of level 0 divided by n, and as the mean ratio otherwise.
    """
    width0, height0 = dimensions[0]
    downsamples = []
    for width, height in dimensions:
        mean_ratio = (width0 / width + height0 / height) / 2
        n = max(round(mean_ratio), 1)
        is_integer = all(small in (full // n, -(-full // n)) for full, small in ((width0, width), (height0, height)))
        downsamples.append(float(n) if is_integer else mean_ratio)
    return tuple(downsamples)


@dataclass(frozen=True)
class Resolution:
    """How one resolution of a slide is obtained.

    Attributes:
        level: Level that is read.
        ratio: Pixels of that level per pixel delivered, in each direction; exactly 1 when the level fits.
        downsample: Level-0 pixels per pixel delivered.
    """

    level: int
    ratio: float
    downsample: float


def resolve(downsamples: Sequence[float], downsample: float) -> Resolution:
    """Choose the level for a resolution.

    Args:
        downsamples: Level-0 pixels per pixel of each level, from `level_downsamples`.
        downsample: Level-0 pixels per pixel asked for (asked mpp / slide mpp); below 1 asks for more than the scan has.

    Returns:
        The nearest level as it is where one lies within 1 %; else the next finer level, resampled; else level 0,
        enlarged. For a level that fits, `downsample` is the level's own.
    """
    if not (math.isfinite(downsample) and downsample > 0):
        raise ConfigError(f"expected a positive number of level-0 pixels per pixel, got {downsample}")
    nearest = min(range(len(downsamples)), key=lambda level: abs(math.log(downsamples[level] / downsample)))
    if abs(downsamples[nearest] / downsample - 1) <= FIT_TOLERANCE:
        return Resolution(nearest, 1.0, downsamples[nearest])
    finer = [level for level, factor in enumerate(downsamples) if factor < downsample]
    level = max(finer, key=lambda level: downsamples[level]) if finer else 0
    return Resolution(level, downsample / downsamples[level], downsample)
