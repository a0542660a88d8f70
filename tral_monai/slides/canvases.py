# SPDX-License-Identifier: Apache-2.0
"""Blocks of a slide as one canvas per magnification, out of which the tiles around many shared centres are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE, TileSource
from tral_monai.slides.magnification import MAGNIFICATIONS, TILE_PX, magnification_to_mpp, resolve
from tral_monai.slides.resample import ResampledTiles
from tral_monai.slides.slide import Slide
from tral_monai.slides.tile_cache import TileCache
from tral_monai.slides.tile_decoder import TileDecoder
from tral_monai.slides.tile_pieces import Tile

CANVAS_PX = 2048
"""Side of a block in pixels of the finest magnification: 256 tiles of 128 px, 14 MB. Twice that is no faster."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels of a source."""

_SAME_AREA = 0.05  # windows that cover a tile up to this share of it tile it exactly


@dataclass(frozen=True)
class CanvasBlock:
    """The tiles around neighbouring centres, as the pictures that they are windows of.

    Attributes:
        indices: int64 (k,), which of the centres, without those that failed.
        canvases: One uint8 (height, width, 3) per magnification. What no tile needs is left undefined.
        starts_px: int64 (magnifications, k, 2), upper left corner (x, y) of each tile in its canvas.
        tile_px: Side of the tiles in pixels.
        failed: int64 (f,), centres with a tile that touches what cannot be decoded.
        messages: What the reader said about them, with coordinates.
    """

    indices: NDArray[np.int64]
    canvases: tuple[RGB, ...]
    starts_px: NDArray[np.int64]
    tile_px: int
    failed: NDArray[np.int64]
    messages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def tiles(self) -> RGB:
        """Return copies of all tiles: uint8 (k, magnifications, tile_px, tile_px, 3), as from `TripletReader`."""
        out = np.empty((len(self), len(self.canvases), self.tile_px, self.tile_px, 3), np.uint8)
        for scale, canvas in enumerate(self.canvases):
            for row, (x, y) in enumerate(self.starts_px[scale].tolist()):
                out[row, scale] = canvas[y : y + self.tile_px, x : x + self.tile_px]
        return out


class CanvasReader:
    """Reads blocks of neighbouring tiles. The pixels are those of `TripletReader`, to the bit.

    A block's canvas holds every pixel once, however many tiles share it, so that little goes to the device, and
    networks that look at whole canvases can. Each tile of the file that a block needs is decoded once; those that the
    next blocks need too are kept in a bounded cache. A tile of the file that does not decode costs the windows on it
    and nothing else. Several threads may read blocks at once; what they give does not depend on it.

    Args:
        slide: The slide.
        magnifications: Magnifications of the tiles, in the order of the canvases.
        tile_px: Side of the tiles in pixels.
        canvas_px: Side of a block in pixels of the finest magnification.
        cache_bytes: Memory for decoded tiles, in bytes.
        cache: A cache that several readers share instead.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        slide: Slide,
        *,
        magnifications: Sequence[float] = MAGNIFICATIONS,
        tile_px: int = TILE_PX,
        canvas_px: int = CANVAS_PX,
        cache_bytes: int = 64 << 20,
        cache: TileCache | None = None,
    ) -> None:
        if not magnifications:
            raise ConfigError("magnifications must hold at least one, got none")
        for name, value in (("tile_px", tile_px), ("canvas_px", canvas_px), ("cache_bytes", cache_bytes)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.slide = slide
        self.magnifications = tuple(float(magnification) for magnification in magnifications)
        self.tile_px = tile_px
        asked = tuple(magnification_to_mpp(m) / slide.mpp for m in self.magnifications)
        self._downsamples = tuple(resolve(slide.level_downsamples, one).downsample for one in asked)
        self.block_level0 = canvas_px * min(self._downsamples)
        self._sources = tuple(slide.source(one) for one in asked)
        self._decoder = TileDecoder(slide, TileCache(cache_bytes) if cache is None else cache)

    def plan(self, centres_xy_level0: ArrayLike) -> list[NDArray[np.int64]]:
        """Divide centres into blocks.

        Args:
            centres_xy_level0: int (n, 2), centres (x, y) in level-0 pixels; they may lie outside of the slide.

        Returns:
            For each block int64 indices of its centres, row by row; blocks row by row too.

        Raises:
            SlideReadError: The centres are no (n, 2) integers.
        """
        centres = self._check(centres_xy_level0)
        if not len(centres):
            return []
        block = np.floor(centres / self.block_level0).astype(np.int64)
        order = np.lexsort((centres[:, 0], centres[:, 1], block[:, 0], block[:, 1])).astype(np.int64)
        changes = np.flatnonzero((np.diff(block[order], axis=0) != 0).any(axis=1)) + 1
        return np.split(order, changes)

    def read(self, centres_xy_level0: ArrayLike, indices: NDArray[np.int64]) -> CanvasBlock:
        """Read one block.

        Args:
            centres_xy_level0: int (n, 2), all centres.
            indices: int64 (k,), those of the block, at least one; the canvases span all of their tiles.

        Returns:
            The block.

        Raises:
            SlideReadError: The centres are no (n, 2) integers, or the block has none.
        """
        centres = self._check(centres_xy_level0)[indices]
        if not len(centres):
            raise SlideReadError(f"{self.slide.name}: a block must hold at least one centre, got none")
        broken = np.zeros(len(centres), bool)
        canvases: list[RGB] = []
        starts_px = np.zeros((len(self._sources), len(centres), 2), np.int64)
        messages: dict[str, None] = {}
        for scale, (source, downsample) in enumerate(zip(self._sources, self._downsamples, strict=True)):
            starts = np.floor(centres / downsample + 0.5).astype(np.int64) - self.tile_px // 2
            origin = starts.min(axis=0)
            starts_px[scale] = starts - origin
            width, height = (starts_px[scale].max(axis=0) + self.tile_px).tolist()
            block_px = self.block_level0 / downsample
            canvas, bad = self._draw(source, starts, origin, (width, height), block_px, messages)
            canvases.append(canvas)
            broken |= bad
        return CanvasBlock(
            indices=indices[~broken],
            canvases=tuple(canvases),
            starts_px=starts_px[:, ~broken],
            tile_px=self.tile_px,
            failed=indices[broken],
            messages=tuple(messages),
        )

    def _draw(
        self,
        source: TileSource,
        starts: NDArray[np.int64],
        origin: NDArray[np.int64],
        size: tuple[int, int],
        block_px: float,
        messages: dict[str, None],
    ) -> tuple[RGB, NDArray[np.bool_]]:
        """Return the canvas of a source, and which windows touch a tile that cannot be decoded."""
        (width, height), (x, y) = size, origin.tolist()
        tile_w, tile_h = source.tile_size
        inside = x >= 0 and y >= 0 and x + width <= source.size[0] and y + height <= source.size[1]
        canvas = np.empty((height, width, 3), np.uint8) if inside else np.full((height, width, 3), WHITE, np.uint8)
        tiles, keep = self._needed(source, starts, block_px)
        bad: list[Rectangle] = []
        for tile, kept in zip(tiles, keep, strict=True):
            try:
                pixels = self._decoder.decoded(source, [tile], [kept])[0]
            except SlideReadError as error:
                pixels, areas = self._without_damage(source, tile, error, messages)
                bad += areas
            left, top = tile[0] * tile_w - x, tile[1] * tile_h - y
            x0, x1 = max(left, 0), min(left + tile_w, width)
            y0, y1 = max(top, 0), min(top + tile_h, height)
            canvas[y0:y1, x0:x1] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]
        broken = np.zeros(len(starts), bool)
        for x0, y0, x1, y1 in bad:
            broken |= ((starts + self.tile_px > (x0, y0)) & (starts < (x1, y1))).all(axis=1)
        return canvas, broken

    def _without_damage(
        self, source: TileSource, tile: Tile, error: SlideReadError, messages: dict[str, None]
    ) -> tuple[RGB, list[Rectangle]]:
        """Return a tile that cannot be decoded, white where it is damaged, and where that is in pixels of the source.

        A resampled tile stands for many tiles of the file, of which only those that are broken count as damage.
        """
        tile_w, tile_h = source.tile_size
        if not isinstance(source, ResampledTiles):
            messages[str(error)] = None
            column, row = tile
            whole = (column * tile_w, row * tile_h, (column + 1) * tile_w, (row + 1) * tile_h)
            return np.full((tile_h, tile_w, 3), WHITE, np.uint8), [whole]
        level, ratio = source.inner, source.ratio
        width, height = level.tile_size
        pixels: dict[Tile, RGB] = {}
        bad: list[Rectangle] = []
        for column, row in source.inner_tiles(*tile):
            try:
                pixels[column, row] = self._decoder.decoded(level, [(column, row)], [True])[0]
            except SlideReadError as inner_error:
                messages[str(inner_error)] = None
                pixels[column, row] = np.full((height, width, 3), WHITE, np.uint8)
                # One pixel around it is mixed with it by the resampling filter.
                low = math.floor(column * width / ratio) - 1, math.floor(row * height / ratio) - 1
                high = math.ceil((column + 1) * width / ratio) + 1, math.ceil((row + 1) * height / ratio) + 1
                bad.append((*low, *high))
        return source.read_tile(*tile, tile=lambda column, row: pixels.get((column, row))), bad

    def _needed(self, source: TileSource, starts: NDArray[np.int64], block_px: float) -> tuple[list[Tile], list[bool]]:
        """Return the source's tiles that windows touch, row by row, and which of them other blocks will want too."""
        tile_size = np.array(source.tile_size)
        count = -(-np.array(source.size) // tile_size)
        first = starts // tile_size
        last = (starts + self.tile_px - 1) // tile_size
        low, high = np.maximum(first.min(axis=0), 0), np.minimum(last.max(axis=0), count - 1)
        if (high < low).any():
            return [], []
        area = np.zeros((high - low + 1)[::-1], np.int64)
        columns, rows = ((last - first).max(axis=0) + 1).tolist()
        for across, down in product(range(columns), range(rows)):
            at = first + np.array((across, down))
            within = ((at <= last) & (at >= low) & (at <= high)).all(axis=1)
            at, corner = at[within], starts[within]
            edge = at * tile_size
            shared = np.minimum(edge + tile_size, corner + self.tile_px) - np.maximum(edge, corner)
            np.add.at(area, (at[:, 1] - low[1], at[:, 0] - low[0]), shared.prod(axis=1))
        row, column = np.nonzero(area)
        tiles = np.column_stack((column, row)) + low
        # Windows of other blocks have their centres outside of this one, so they reach half a tile into it.
        middle = (starts + self.tile_px / 2).mean(axis=0)
        block = np.floor(middle / block_px) * block_px
        reach = self.tile_px / 2 + 1
        own = (tiles * tile_size >= block + reach) & ((tiles + 1) * tile_size <= block + block_px - reach)
        once = np.abs(area[row, column] / tile_size.prod() - 1) <= _SAME_AREA
        keep = ~(own.all(axis=1) | once)
        return [(int(c), int(r)) for c, r in tiles], keep.tolist()

    def _check(self, centres_xy_level0: ArrayLike) -> NDArray[np.int64]:
        centres = np.asarray(centres_xy_level0)
        if centres.size == 0:
            return np.empty((0, 2), np.int64)
        if centres.ndim != 2 or centres.shape[1] != 2 or not np.issubdtype(centres.dtype, np.integer):
            raise SlideReadError(
                f"{self.slide.name}: centres must be integers (n, 2), x and y in level-0 pixels, "
                f"got {centres.dtype} {centres.shape}"
            )
        return centres.astype(np.int64, copy=False)
