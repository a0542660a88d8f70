# SPDX-License-Identifier: Apache-2.0
"""Multiscale tiles that share a centre: read many at once, decoding every tile of the file as rarely as possible."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE, TileSource
from tral_monai.slides.magnification import MAGNIFICATIONS, TILE_PX, magnification_to_mpp, resolve
from tral_monai.slides.slide import Slide
from tral_monai.slides.tile_cache import TileCache
from tral_monai.slides.tile_decoder import TileDecoder
from tral_monai.slides.tile_pieces import plan_pieces

_GROUP = 1024  # triplets planned together: a block of 4096 px on tissue
_TILES_PER_THREAD = 8


def triplets_to_tensor_layout(triplets: RGB) -> RGB:
    """Turn (n, scales, height, width, 3) into a network's channels-first layout.

    Args:
        triplets: uint8 (n, 3, 128, 128, 3) from `TripletReader`.

    Returns:
        uint8 (n, 9, 128, 128), contiguous: RGB at 40x, RGB at 10x, RGB at 2.5x.
    """
    n, scales, height, width, colours = triplets.shape
    return np.ascontiguousarray(triplets.transpose(0, 1, 4, 2, 3)).reshape(n, scales * colours, height, width)


class TripletReader:
    """Reads tiles at several magnifications around shared centres.

    At a magnification with d level-0 pixels per pixel, a 128 px tile starts at `floor(centre / d + 0.5) - 64`: the
    centre lies on the boundary between pixels 63 and 64, exactly where d divides it and within half a pixel elsewhere,
    the same inside of the slide and at its border. What lies outside is white. A triplet's pixels do not depend on what
    else is read, in which order, or by how many threads.

    Requests are ordered by blocks of the slide. Each tile of the file that they touch is decoded once, cut into the
    windows while it is at hand, and kept in a bounded cache, unless the windows tile it exactly, as those of a grid do:
    a grid does not come back to it. The cache serves scattered requests (shuffled training) as well.

    The reader can be pickled and used after a fork; every process opens the file for itself.

    Args:
        slide: The slide.
        magnifications: Magnifications of the tiles, in the order of the output.
        tile_px: Side of the tiles in pixels.
        block_px: Side of the blocks in level-0 pixels.
        cache_bytes: Memory for decoded tiles, in bytes; 64 MiB hold what a grid on a slide of any size comes back to.
        cache: A cache that several readers share (one thread at a time), instead of one of `cache_bytes` for this one.
        num_threads: Threads that decode.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        slide: Slide,
        *,
        magnifications: Sequence[float] = MAGNIFICATIONS,
        tile_px: int = TILE_PX,
        block_px: int = 4096,
        cache_bytes: int = 64 << 20,
        cache: TileCache | None = None,
        num_threads: int = 1,
    ) -> None:
        if not magnifications:
            raise ConfigError("magnifications must hold at least one, got none")
        for name, value in (
            ("tile_px", tile_px),
            ("block_px", block_px),
            ("cache_bytes", cache_bytes),
            ("num_threads", num_threads),
        ):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.slide = slide
        self.magnifications = tuple(float(magnification) for magnification in magnifications)
        self.tile_px = tile_px
        self.block_px = block_px
        self.num_threads = num_threads
        self._cache = TileCache(cache_bytes) if cache is None else cache
        self._asked = tuple(magnification_to_mpp(m) / slide.mpp for m in self.magnifications)
        self._downsamples = tuple(resolve(slide.level_downsamples, asked).downsample for asked in self._asked)
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._backend = self.slide.backend
        self._lock = threading.Lock()
        self._sources: tuple[TileSource, ...] = ()
        self._threads: ThreadPoolExecutor | None = None

    def _open(self) -> None:
        """Make what belongs to this process, once."""
        if not self._sources:
            self._sources = tuple(self.slide.source(asked) for asked in self._asked)
            self._threads = ThreadPoolExecutor(self.num_threads) if self.num_threads > 1 else None
            self._decoder = TileDecoder(
                self.slide, self._cache, in_order=map if self._threads is None else self._threads.map
            )

    def read(self, centres_xy_level0: ArrayLike) -> RGB:
        """Read triplets in the order given.

        Args:
            centres_xy_level0: int (n, 2), centres (x, y) in level-0 pixels; they may lie outside of the slide.

        Returns:
            uint8 (n, magnifications, tile_px, tile_px, 3) RGB.

        Raises:
            SlideReadError: The centres are no (n, 2) integers, or a tile of the file cannot be decoded.
        """
        centres = self._check(centres_xy_level0)
        return self._read(centres, self._order(centres))

    def iter_blocks(self, centres_xy_level0: ArrayLike, max_triplets: int) -> Iterator[tuple[NDArray[np.int64], RGB]]:
        """Read many triplets in bounded memory, in the order that suits the file.

        Args:
            centres_xy_level0: int (n, 2), centres (x, y) in level-0 pixels.
            max_triplets: Triplets per step; all steps but the last hold this many.

        Yields:
            `(indices, triplets)`: rows of `centres_xy_level0`, int64 (k,), and their uint8
            (k, magnifications, tile_px, tile_px, 3). Every row comes exactly once.

        Raises:
            SlideReadError: As for `read`.
        """
        if max_triplets < 1:
            raise ConfigError(f"max_triplets must be at least 1, got {max_triplets}")
        centres = self._check(centres_xy_level0)
        order = self._order(centres)
        for start in range(0, len(order), max_triplets):
            indices = order[start : start + max_triplets]
            yield indices, self._read(centres[indices], np.arange(len(indices)))

    def _check(self, centres_xy_level0: ArrayLike) -> NDArray[np.int64]:
        centres = np.asarray(centres_xy_level0)
        if centres.size == 0:
            return np.empty((0, 2), np.int64)
        if centres.ndim != 2 or centres.shape[1] != 2 or not np.issubdtype(centres.dtype, np.integer):
            raise SlideReadError(
                f"{self.slide.name}: centres must be integers (n, 2), x and y in level-0 pixels, "
                f"got {centres.dtype} {centres.shape}"
            )
        return centres.astype(np.int64)

    def _order(self, centres: NDArray[np.int64]) -> NDArray[np.int64]:
        """Block by block, row by row inside of a block."""
        block = centres // self.block_px
        return np.lexsort((centres[:, 0], centres[:, 1], block[:, 0], block[:, 1])).astype(np.int64)

    def _read(self, centres: NDArray[np.int64], order: NDArray[np.int64]) -> RGB:
        out = np.empty((len(centres), len(self.magnifications), self.tile_px, self.tile_px, 3), np.uint8)
        if self._pid != os.getpid() or self._backend is not self.slide.backend:
            self._reset()
        with self._lock:
            self._open()
            for start in range(0, len(order), _GROUP):
                self._read_group(centres, order[start : start + _GROUP], out)
        return out

    def _read_group(self, centres: NDArray[np.int64], group: NDArray[np.int64], out: RGB) -> None:
        # One tile after the other while it is in the CPU's cache; with threads, a few for each of them.
        batch = 1 if self._threads is None else _TILES_PER_THREAD * self.num_threads
        for scale, (source, downsample) in enumerate(zip(self._sources, self._downsamples, strict=True)):
            starts = np.floor(centres[group] / downsample + 0.5).astype(np.int64) - self.tile_px // 2
            pieces = plan_pieces(source, starts, self.tile_px, group)
            windows = out[:, scale]
            windows[pieces.partial] = WHITE
            for start in range(0, len(pieces.tiles), batch):
                keep = [not tiled for tiled in pieces.tiled_once[start : start + batch]]
                tiles = self._decoder.decoded(source, pieces.tiles[start : start + batch], keep)
                for number, pixels in enumerate(tiles, start):
                    pieces.copy(number, pixels, windows)

    def __getstate__(self) -> dict[str, Any]:
        own = {"_pid": -1, "_backend": None, "_lock": None, "_sources": (), "_threads": None, "_decoder": None}
        return {**self.__dict__, **own}
