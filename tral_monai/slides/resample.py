# SPDX-License-Identifier: Apache-2.0
"""A level resampled to a resolution that the file does not hold, as tiles on a grid fixed to the slide's origin."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from tral_monai.slides.backend import RGB, TileSource, read_window

TileLookup = Callable[[int, int], "RGB | None"]

_MAX_TILE_PX = 256
_MAX_SOURCE_PX = 2048


class ResampledTiles:
    """A source of tiles at `ratio` pixels of another source per pixel.

    A tile is always computed as a whole from the same source pixels, so a delivered pixel depends on its place in the
    slide only and never on what else was asked for. Reduction filters out what the new grid cannot hold (Pillow's
    Hamming filter, about as sharp as a scanner's own pyramid); enlargement is bilinear.

    Args:
        inner: The finer source (or level 0).
        ratio: Pixels of `inner` per pixel of this source; below 1 enlarges.
    """

    def __init__(self, inner: TileSource, ratio: float) -> None:
        self.inner = inner
        self.ratio = ratio
        # A tile holds at most 2048 px of the source on a side, so that a coarse view of a slide without a pyramid
        # never loads the slide at once.
        side = max(min(_MAX_TILE_PX, 2 ** int(math.log2(_MAX_SOURCE_PX / ratio))), 1) if ratio < _MAX_SOURCE_PX else 1
        self.key: tuple[float, ...] = (*inner.key, ratio)
        self.size = (math.ceil(inner.size[0] / ratio), math.ceil(inner.size[1] / ratio))
        self.tile_size = (side, side)
        self._filter = Image.Resampling.HAMMING if ratio > 1 else Image.Resampling.BILINEAR
        self._margin = math.ceil(max(ratio, 1.0)) + 1  # both filters reach one output pixel to each side

    def _inner_window(self, column: int, row: int) -> tuple[int, int, int, int]:
        side = self.tile_size[0]
        x0 = math.floor(column * side * self.ratio) - self._margin
        y0 = math.floor(row * side * self.ratio) - self._margin
        x1 = math.ceil((column + 1) * side * self.ratio) + self._margin
        y1 = math.ceil((row + 1) * side * self.ratio) + self._margin
        return x0, y0, x1, y1

    def inner_tiles(self, column: int, row: int) -> list[tuple[int, int]]:
        """Return (column, row) of the inner source's tiles that one tile of this source is computed from."""
        x0, y0, x1, y1 = self._inner_window(column, row)
        (tile_w, tile_h), (width, height) = self.inner.tile_size, self.inner.size
        return [
            (inner_column, inner_row)
            for inner_row in range(max(y0, 0) // tile_h, -(-min(y1, height) // tile_h))
            for inner_column in range(max(x0, 0) // tile_w, -(-min(x1, width) // tile_w))
        ]

    def read_tile(self, column: int, row: int, *, tile: TileLookup | None = None) -> RGB:
        """Return one resampled tile; `tile` looks up inner tiles that are decoded already."""
        x0, y0, x1, y1 = self._inner_window(column, row)
        window = read_window(self.inner, x0, y0, x1 - x0, y1 - y0, tile=tile)
        side = self.tile_size[0]
        left, top = column * side * self.ratio - x0, row * side * self.ratio - y0
        extent = side * self.ratio
        box = (left, top, left + extent, top + extent)
        return np.asarray(Image.fromarray(window).resize((side, side), self._filter, box=box))
