# SPDX-License-Identifier: Apache-2.0
"""Outlines to labelled tiles: how much of each tile lies in each class, and which class a tile gets.

As in TRI-AL: outlines become masks at 2.5x, where a 128 px tile at 40x is a cell of 8 x 8 pixels; some classes are
carved out of the others; a tile is kept for a class that covers more than 0.7 of its cell (45 of 64 pixels or more).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely

from tral_monai.annotations.rasterise import fill_polygons
from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.errors import ConfigError
from tral_monai.slides import TILE_PX, TissueMask

CELL_PX = 8
"""Side of a tile in pixels of the mask."""

Area: TypeAlias = "shapely.Polygon | shapely.MultiPolygon"
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TileLabels:
    """Labelled tiles of one slide, row by row.

    Attributes:
        rows: (n,) int64 row in the grid.
        columns: (n,) int64 column in the grid.
        classes: (n,) object, class of each tile.
        coverage: (n,) float32, part of the tile that the class covers.
        contested: tiles among these that two or more classes covered enough; the class with most of it got them.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    classes: npt.NDArray[np.object_]
    coverage: npt.NDArray[np.float32]
    contested: int = 0


def label_tiles(
    areas: Mapping[str, Sequence[Area]],
    grid: TileGrid,
    *,
    classes: Sequence[str],
    coverage: float = 0.7,
    carve_out: Sequence[str] = (),
    tissue: TissueMask | None = None,
) -> TileLabels:
    """Give each tile of the grid the class that covers more than a given part of it.

    Args:
        areas: valid polygons per class, level-0 px; what lies outside of the slide does not count.
        grid: the grid of tiles. Its stride must be a multiple of 16 px, one pixel of the mask.
        classes: classes that give tiles, in order: of two that cover a tile equally, the first gets it.
        coverage: a tile is kept if its class covers more than this part of it.
        carve_out: classes in order of priority: the area of each is taken from every class that follows it here or
            does not stand here.
        tissue: where given, only tissue counts.

    Returns:
        The labelled tiles.

    Raises:
        ConfigError: a coverage outside of [0, 1), or a stride that is no multiple of 16.
    """
    if not 0 <= coverage < 1:
        raise ConfigError(f"coverage must be at least 0 and below 1, but is {coverage}")
    if (grid.stride_px * CELL_PX) % TILE_PX:
        raise ConfigError(
            f"stride_px must be a multiple of {TILE_PX // CELL_PX} for labelled tiles, but is {grid.stride_px}"
        )
    window = _window(areas, grid)
    if window is None:
        nothing = np.empty(0, np.int64)
        return TileLabels(nothing, nothing, np.empty(0, object), np.empty(0, np.float32))
    usable = _on_slide(window, grid) if tissue is None else _on_slide(window, grid) & _on_tissue(window, grid, tissue)
    taken: Mask = np.zeros_like(usable)  # by classes of higher priority
    best = np.zeros((window.rows, window.columns), np.float32)
    owner = np.full(best.shape, -1, np.int64)
    claims = np.zeros(best.shape, np.int64)
    followers = [name for name in classes if name not in carve_out]
    for name in (*carve_out, *followers):
        polygons = areas.get(name, ())
        if not polygons:
            continue
        mask: Mask = np.zeros_like(usable)
        fill_polygons(mask, polygons, pitch=window.pitch, origin=(window.left_px, window.top_px))
        mask &= ~taken
        if name in carve_out:
            taken |= mask
        if name not in classes:
            continue
        part = _cell_sums(mask & usable, window).astype(np.float32) / CELL_PX**2
        enough = part > np.float32(coverage)
        claims += enough
        rank = classes.index(name)
        wins = enough & ((part > best) | ((part == best) & (rank < owner)))
        best[wins], owner[wins] = part[wins], rank
    rows, columns = np.nonzero(owner >= 0)
    names = np.array(list(classes), dtype=object)
    return TileLabels(
        rows=(rows + window.first_row).astype(np.int64),
        columns=(columns + window.first_column).astype(np.int64),
        classes=names[owner[rows, columns]],
        coverage=best[rows, columns],
        contested=int((claims > 1).sum()),
    )


@dataclass(frozen=True)
class _Window:
    """Tiles that any outline reaches, and the mask over them."""

    first_row: int
    first_column: int
    rows: int
    columns: int
    stride: int  # in pixels of the mask
    pitch: float  # level-0 px per pixel of the mask

    @property
    def left_px(self) -> int:
        return self.first_column * self.stride

    @property
    def top_px(self) -> int:
        return self.first_row * self.stride

    @property
    def shape_px(self) -> tuple[int, int]:
        return (self.rows - 1) * self.stride + CELL_PX, (self.columns - 1) * self.stride + CELL_PX


def _window(areas: Mapping[str, Sequence[Area]], grid: TileGrid) -> _Window | None:
    polygons = [polygon for group in areas.values() for polygon in group]
    if not polygons:
        return None
    x0, y0, x1, y1 = shapely.total_bounds(np.array(polygons, dtype=object))
    rows, columns = grid.shape
    first_row, first_column = (max(math.ceil((v - grid.tile_level0) / grid.step_level0), 0) for v in (y0, x0))
    last_row, last_column = (math.floor(v / grid.step_level0) for v in (y1, x1))
    height, width = min(last_row + 1, rows) - first_row, min(last_column + 1, columns) - first_column
    if height < 1 or width < 1:
        return None
    stride = grid.stride_px * CELL_PX // TILE_PX
    return _Window(first_row, first_column, height, width, stride, grid.tile_level0 / CELL_PX)


def _centres(window: _Window) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(h,) y and (w,) x of the centres of the mask's pixels, level-0 px."""
    height, width = window.shape_px
    y, x = window.top_px + np.arange(height) + 0.5, window.left_px + np.arange(width) + 0.5
    return y * window.pitch, x * window.pitch


def _on_slide(window: _Window, grid: TileGrid) -> Mask:
    y, x = _centres(window)
    inside: Mask = (y < grid.dimensions[1])[:, None] & (x < grid.dimensions[0])
    return inside


def _on_tissue(window: _Window, grid: TileGrid, tissue: TissueMask) -> Mask:
    y, x = ((c / tissue.downsample_level0).astype(np.int64) for c in _centres(window))
    height, width = tissue.mask.shape
    return tissue.mask[np.minimum(y, height - 1)[:, None], np.minimum(x, width - 1)]


def _cell_sums(mask: Mask, window: _Window) -> npt.NDArray[np.int64]:
    """(rows, columns) number of set pixels of each tile."""
    unit = math.gcd(CELL_PX, window.stride)
    height, width = (extent // unit for extent in mask.shape)
    blocks = mask.reshape(height, unit, width, unit).sum(axis=3, dtype=np.uint8).sum(axis=1, dtype=np.int64)
    size, step = CELL_PX // unit, window.stride // unit
    total = np.zeros((height + 1, width + 1), np.int64)
    total[1:, 1:] = blocks.cumsum(0).cumsum(1)
    rows, columns = np.arange(window.rows)[:, None] * step, np.arange(window.columns) * step
    return (
        total[rows + size, columns + size]
        - total[rows, columns + size]
        - total[rows + size, columns]
        + total[rows, columns]
    )
