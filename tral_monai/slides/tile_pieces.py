# SPDX-License-Identifier: Apache-2.0
"""Windows put together from tiles: planned for many windows at once, then copied tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tral_monai.slides.backend import RGB, TileSource

Tile = tuple[int, int]
"""Column and row of a tile."""


@dataclass(frozen=True)
class TilePieces:
    """How windows are put together: the parts of tiles that go into them, in the order of the tiles.

    Attributes:
        tiles: The tiles, each once.
        first: First piece of each tile, and the number of pieces at the end.
        pieces: Of each piece the row of `out`; left, top, right, bottom inside of its window; left, top, right, bottom
            inside of its tile.
        tiled_once: Of each tile, whether the windows on it have its area, up to 5 %: neither less nor a multiple.
        partial: Rows of `out` whose windows leave the tiles, and so need white first, int64.
    """

    tiles: list[Tile]
    first: list[int]
    pieces: list[list[int]]
    tiled_once: list[bool]
    partial: NDArray[np.int64]

    def copy(self, number: int, pixels: RGB, out: RGB) -> None:
        """Copy the pieces of one tile.

        Args:
            number: Which of `tiles`.
            pixels: Its pixels, uint8 (tile height, tile width, 3).
            out: uint8 (n, side, side, 3); window w goes to `out[rows[w]]`.
        """
        for piece in range(self.first[number], self.first[number + 1]):
            row, left, top, right, bottom, x, y, x_end, y_end = self.pieces[piece]
            out[row, top:bottom, left:right] = pixels[y:y_end, x:x_end]


def plan_pieces(source: TileSource, starts: NDArray[np.int64], side: int, rows: NDArray[np.int64]) -> TilePieces:
    """Cut square windows into pieces of a source's tiles.

    Args:
        source: Where the tiles come from.
        starts: int64 (n, 2), top left corners (x, y) of the windows in pixels of the source; they may lie outside.
        side: Side of the windows in pixels.
        rows: int64 (n,), where each window goes.
    """
    tile_size = np.array(source.tile_size)
    count = -(-np.array(source.size) // tile_size)
    first, last = starts // tile_size, (starts + side - 1) // tile_size
    columns, lines = ((last - first).max(axis=0, initial=0) + 1).tolist()
    found = []
    for across, down in product(range(columns), range(lines)):
        at = first + np.array((across, down))
        window = np.flatnonzero(((at <= last) & (at >= 0) & (at < count)).all(axis=1))
        at, start = at[window], starts[window]
        corner = at * tile_size
        low, high = np.maximum(corner, start), np.minimum(corner + tile_size, start + side)
        tile = at[:, 1] * count[0] + at[:, 0]
        found.append(np.column_stack((tile, rows[window], low - start, high - start, low - corner, high - corner)))
    pieces = np.concatenate(found)
    pieces = pieces[np.argsort(pieces[:, 0], kind="stable")]
    tiles, begins = np.unique(pieces[:, 0], return_index=True)
    tile_rows, tile_columns = np.divmod(tiles, count[0])
    area = (pieces[:, 4:6] - pieces[:, 2:4]).prod(axis=1)
    used = np.add.reduceat(area, begins) / tile_size.prod() if len(begins) else np.empty(0)
    return TilePieces(
        tiles=list(zip(tile_columns.tolist(), tile_rows.tolist(), strict=True)),
        first=[*begins.tolist(), len(pieces)],
        pieces=pieces[:, 1:].tolist(),
        tiled_once=(np.abs(used - 1) <= 0.05).tolist(),
        partial=rows[((first < 0) | (last >= count)).any(axis=1)],
    )
