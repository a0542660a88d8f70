# SPDX-License-Identifier: Apache-2.0
"""Which tiles a detector looks at: those with tissue, in the part of the image that is asked for and around it."""

from __future__ import annotations

import dataclasses

import numpy as np

from tral_monai.inference.nuclei.tile_plan import FloatArray, IntArray, TilePlan
from tral_monai.inference.slide_window import SlideWindow
from tral_monai.slides.tissue import TissueMask

_REACH = 1.25  # overlaps around the window from which a box can be a rival of one inside; see seams.belongs


@dataclasses.dataclass(frozen=True)
class ChosenTiles:
    """Tiles to look at.

    Attributes:
        tiles: (n,) their numbers in the plan, in rising order.
        areas_level0: (n,) area inside of the window that each of them answers for, of tissue where there is a mask,
            level-0 px squared.
    """

    tiles: IntArray
    areas_level0: FloatArray


def choose_tiles(
    plan: TilePlan, window: SlideWindow, downsample: float, *, mask: TissueMask | None, min_coverage: float
) -> ChosenTiles:
    """Choose the tiles whose core lies in a window, and those around that share nuclei with them.

    Args:
        plan: the tiles of the whole image.
        window: the part of the image that is asked for.
        downsample: level-0 pixels per pixel of the plan.
        mask: tissue of the whole image; None takes all of it.
        min_coverage: share of a tile's core that must be tissue.
    """
    areas_px = plan.core_areas_px().ravel()
    own = areas_px if mask is None else plan.mask_area_px(mask.mask, mask.downsample_level0 / downsample).ravel()
    wanted = own >= min_coverage * areas_px
    if mask is not None:
        wanted &= own > 0
    cores_level0 = plan.cores_px(np.arange(areas_px.size)) * downsample
    near, shared_level0 = window.overlaps(cores_level0, _REACH * plan.overlap_px * downsample)
    tiles = np.flatnonzero(wanted & near)
    if mask is None:
        return ChosenTiles(tiles, shared_level0[tiles])
    pixel = mask.downsample_level0
    inside = mask.mask.copy()
    y, x = ((np.arange(side) + 0.5) * pixel for side in mask.mask.shape)
    xmin, ymin, xmax, ymax = window.bounds_level0
    inside[(y < ymin) | (y >= ymax)] = False
    inside[:, (x < xmin) | (x >= xmax)] = False
    return ChosenTiles(tiles, plan.mask_area_px(inside, pixel / downsample).ravel()[tiles] * downsample**2)
