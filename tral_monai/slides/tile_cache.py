# SPDX-License-Identifier: Apache-2.0
"""Decoded tiles kept for reuse in a fixed amount of memory; the least recently used leave first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import numpy as np

from tral_monai.slides.backend import RGB


class TileCache:
    """A bounded cache of RGB tiles in one block of memory.

    The block is taken once and its slots are reused: decoding into a fresh array each time would spend a tenth of the
    time on page faults. The operating system backs a slot with memory when it is first used.

    Args:
        cache_bytes: Upper bound of the memory in bytes.
        tile_bytes: Size of the largest tile in bytes.
        min_tiles: Number of tiles held whatever `cache_bytes` says: what the smallest piece of work needs at once.
    """

    def __init__(self, cache_bytes: int, tile_bytes: int, *, min_tiles: int = 1) -> None:
        self.capacity = max(cache_bytes // tile_bytes, min_tiles, 1)
        self._slots = np.empty((self.capacity, tile_bytes), np.uint8)
        self._free = list(range(self.capacity - 1, -1, -1))
        self._tiles: OrderedDict[Hashable, tuple[int, RGB]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, key: Hashable) -> RGB | None:
        """Return the tile, which becomes the most recently used, or None."""
        found = self._tiles.get(key)
        if found is None:
            return None
        self._tiles.move_to_end(key)
        return found[1]

    def reserve(self, key: Hashable, tile_size: tuple[int, int]) -> RGB:
        """Return an array uint8 (height, width, 3) to be filled with the tile, in place of the least recently used.

        Args:
            key: Identifies the tile; it must not be in the cache.
            tile_size: (width, height) in pixels.
        """
        slot = self._free.pop() if self._free else self._tiles.popitem(last=False)[1][0]
        width, height = tile_size
        tile = self._slots[slot, : width * height * 3].reshape(height, width, 3)
        self._tiles[key] = (slot, tile)
        return tile

    def drop(self, key: Hashable) -> None:
        """Forget a tile, such as one whose decoding failed."""
        slot, _ = self._tiles.pop(key)
        self._free.append(slot)
