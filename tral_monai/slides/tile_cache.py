# SPDX-License-Identifier: Apache-2.0
"""Decoded tiles kept for reuse in bounded memory; the least recently used leave first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from tral_monai.slides.backend import RGB


class TileCache:
    """A cache of RGB tiles for any number of threads.

    A pickled cache arrives empty, and is still shared by those that shared it.

    Args:
        limit_bytes: The tiles held never have more bytes than this together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._tiles: OrderedDict[Hashable, RGB] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, key: Hashable) -> RGB | None:
        """Return the tile, which becomes the most recently used, or None."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: RGB) -> None:
        """Keep a tile; the least recently used make room. A tile larger than the limit is not kept."""
        if tile.nbytes > self.limit_bytes:
            return
        with self._lock:
            known = self._tiles.pop(key, None)
            self.size_bytes += tile.nbytes - (0 if known is None else known.nbytes)
            self._tiles[key] = tile
            while self.size_bytes > self.limit_bytes:
                self.size_bytes -= self._tiles.popitem(last=False)[1].nbytes
