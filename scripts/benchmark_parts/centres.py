# SPDX-License-Identifier: Apache-2.0
"""Which tiles of a slide are measured: all of its tissue, or the square with the most of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tral_monai.slides.magnification import level0_per_tile
from tral_monai.slides.slide import Slide
from tral_monai.slides.tissue import tissue_mask


def tissue_centres(slide: Slide) -> NDArray[np.int64]:
    """(n, 2) int64 centres (x, y) of the grid's tiles, at least half of them tissue, in reading order."""
    step = level0_per_tile(slide.mpp)
    x, y = (np.floor((np.arange(max(int(side / step), 1)) + 0.5) * step).astype(np.int64) for side in slide.dimensions)
    centres = np.column_stack([axis.ravel() for axis in np.meshgrid(x, y)])
    return centres[tissue_mask(slide).coverage(centres, step) >= 0.5]


def tissue_square(slide: Slide, tiles: int) -> tuple[int, int, int, int]:
    """The square of the grid (x, y, width, height in level-0 px) of about ``tiles`` cells that holds most tissue."""
    step = level0_per_tile(slide.mpp)
    columns, rows = (int(side / step) for side in slide.dimensions)
    side = max(1, min(round(tiles**0.5), columns, rows))
    cells = np.floor(tissue_centres(slide) / step).astype(np.int64)
    count = np.zeros((rows + 1, columns + 1), np.int64)
    count[cells[:, 1] + 1, cells[:, 0] + 1] = 1
    count = count.cumsum(axis=0).cumsum(axis=1)
    held = count[side:, side:] - count[:-side, side:] - count[side:, :-side] + count[:-side, :-side]
    row, column = np.unravel_index(int(held.argmax()), held.shape)
    x, y = (int(np.ceil(index * step)) for index in (column, row))
    return x, y, int(side * step), int(side * step)
