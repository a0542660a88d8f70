# SPDX-License-Identifier: Apache-2.0
"""Tiles of a slide's sources, decoded once and kept in a cache that several readers and threads may share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tral_monai.slides.backend import RGB, TileSource
from tral_monai.slides.resample import ResampledTiles
from tral_monai.slides.tile_cache import TileCache
from tral_monai.slides.tile_pieces import Tile

if TYPE_CHECKING:
    from tral_monai.slides.slide import Slide

Map = Callable[[Callable[[Tile], RGB], Iterable[Tile]], Iterable[RGB]]


class TileDecoder:
    """Decodes tiles of one slide, looking into a cache first.

    Args:
        slide: The slide that the sources belong to.
        cache: Where tiles that will be asked for again are kept.
        in_order: How a function is run over tiles, such as a thread pool's `map`; the built-in `map` by default.
    """

    def __init__(self, slide: Slide, cache: TileCache, *, in_order: Map = map) -> None:
        self._key: tuple[Any, ...] = (slide.path, slide.backend_name)
        self._cache = cache
        self._map = in_order

    def tile(self, source: TileSource, column: int, row: int) -> RGB:
        """Return one tile that will not be asked for again; see `decoded`."""
        return self.decoded(source, [(column, row)], [False])[0]

    def decoded(self, source: TileSource, tiles: Sequence[Tile], keep: Sequence[bool]) -> list[RGB]:
        """Return tiles from the cache or decoded.

        Args:
            source: One of the slide's resolutions.
            tiles: (column, row) of each.
            keep: Whether each is put into the cache.

        Returns:
            uint8 (tile height, tile width, 3) each, not to be changed.

        Raises:
            SlideReadError: A tile cannot be decoded.
        """
        key = (*self._key, source.key)
        found = [self._cache.get((*key, tile)) for tile in tiles]
        missing = [tile for tile, pixels in zip(tiles, found, strict=True) if pixels is None]
        if not missing:
            return [pixels for pixels in found if pixels is not None]
        inner: dict[Tile, RGB] = {}
        if isinstance(source, ResampledTiles):
            inner_tiles = sorted({inner_tile for tile in missing for inner_tile in source.inner_tiles(*tile)})
            inner_pixels = self.decoded(source.inner, inner_tiles, [True] * len(inner_tiles))
            inner = dict(zip(inner_tiles, inner_pixels, strict=True))

        def decode(tile: Tile) -> RGB:
            if isinstance(source, ResampledTiles):
                return source.read_tile(*tile, tile=lambda column, row: inner.get((column, row)))
            return source.read_tile(*tile)

        fresh = iter(list(self._map(decode, missing)))
        decoded = []
        for tile, pixels, kept in zip(tiles, found, keep, strict=True):
            if pixels is None:
                pixels = next(fresh)
                if kept:
                    self._cache.put((*key, tile), pixels)
            decoded.append(pixels)
        return decoded
