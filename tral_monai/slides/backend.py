# SPDX-License-Identifier: Apache-2.0
"""What a slide backend must offer: the levels of the pyramid and their tiles. Everything else is built on that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
WHITE = 255


class Backend(Protocol):
    """An open slide file, seen as levels cut into tiles on a fixed grid that starts at the level's top left corner.

    Attributes:
        name: Name under which `open_slide` knows the backend.
        level_dimensions: (width, height) in pixels of every level, level 0 (full resolution) first.
        mpp_xy: Micrometres per level-0 pixel in x and y as the file records them, None where it does not.
    """

    name: str
    level_dimensions: tuple[tuple[int, int], ...]
    mpp_xy: tuple[float, float] | None

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the level's tiles in pixels: the unit in which reading is cheapest."""
        ...

    def read_tile(self, level: int, column: int, row: int) -> RGB:
        """Return one tile, uint8 (tile height, tile width, 3), not to be changed; pixels beyond the level are white.

        Tiles may be read from several threads at once. Raises `SlideReadError` when the tile cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        ...


class TileSource(Protocol):
    """One resolution of a slide as tiles: a level of the file, or a level resampled to another resolution.

    Attributes:
        key: Identifies the source among all sources of one slide.
        size: (width, height) in pixels.
        tile_size: (width, height) of a tile in pixels.
    """

    key: tuple[float, ...]
    size: tuple[int, int]
    tile_size: tuple[int, int]

    def read_tile(self, column: int, row: int) -> RGB:
        """Return one tile, uint8 (tile height, tile width, 3), not to be changed; pixels beyond `size` are white."""
        ...


class LevelTiles:
    """A level of the file as it is."""

    def __init__(self, backend: Backend, level: int) -> None:
        self._backend = backend
        self._level = level
        self.key: tuple[float, ...] = (level,)
        self.size = backend.level_dimensions[level]
        self.tile_size = backend.tile_size(level)

    def read_tile(self, column: int, row: int) -> RGB:
        """Return the tile of the level."""
        return self._backend.read_tile(self._level, column, row)


def read_window(
    source: TileSource, x: int, y: int, width: int, height: int, *, tile: Callable[[int, int], RGB | None] | None = None
) -> RGB:
    """Put a window together from tiles; white where it leaves the slide.

    Args:
        source: Where the tiles come from.
        x: Left edge of the window in pixels of the source, may be negative.
        y: Top edge of the window in pixels of the source, may be negative.
        width: Width in pixels.
        height: Height in pixels.
        tile: Looks up a tile that is decoded already by (column, row); None, or an answer of None, means decode it.

    Returns:
        uint8 (height, width, 3).
    """
    out = np.full((height, width, 3), WHITE, np.uint8)
    tile_w, tile_h = source.tile_size
    left, right = max(x, 0), min(x + width, source.size[0])
    top, bottom = max(y, 0), min(y + height, source.size[1])
    if left >= right or top >= bottom:
        return out
    for row in range(top // tile_h, -(-bottom // tile_h)):
        y0, y1 = max(row * tile_h, y), min((row + 1) * tile_h, y + height)
        for column in range(left // tile_w, -(-right // tile_w)):
            x0, x1 = max(column * tile_w, x), min((column + 1) * tile_w, x + width)
            pixels = tile(column, row) if tile is not None else None
            if pixels is None:
                pixels = source.read_tile(column, row)
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[
                y0 - row * tile_h : y1 - row * tile_h, x0 - column * tile_w : x1 - column * tile_w
            ]
    return out
