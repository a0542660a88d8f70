# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np

from tral_monai.slides.tile_cache import TileCache


def tile(value, width=2, height=2):
    return np.full((height, width, 3), value, np.uint8)


def test_least_recently_used_leaves_first():
    cache = TileCache(limit_bytes=3 * 12)
    for value, key in enumerate("abc"):
        cache.put(key, tile(value))
    assert cache.get("a") is not None
    cache.put("d", tile(3))
    assert cache.get("b") is None
    assert {key: int(cache.get(key)[0, 0, 0]) for key in "acd"} == {"a": 0, "c": 2, "d": 3}
    assert (len(cache), cache.size_bytes) == (3, 36)


def test_a_large_tile_takes_the_room_of_several():
    cache = TileCache(limit_bytes=40)
    for key in "abc":
        cache.put(key, tile(1))
    cache.put("large", tile(2, width=4))
    assert [cache.get(key) is not None for key in ("a", "b", "c", "large")] == [False, False, True, True]
    assert cache.size_bytes == 36


def test_a_tile_larger_than_the_limit_is_not_kept():
    cache = TileCache(limit_bytes=11)
    cache.put("a", tile(1))
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_the_same_key_again_replaces_the_tile():
    cache = TileCache(limit_bytes=100)
    cache.put("a", tile(1))
    cache.put("a", tile(2, width=3))
    assert (cache.get("a") == 2).all()
    assert (len(cache), cache.size_bytes) == (1, 18)


def test_pickled_cache_is_empty_and_still_shared():
    cache = TileCache(limit_bytes=100)
    cache.put("a", tile(1))
    first, second = pickle.loads(pickle.dumps([cache, cache]))
    assert first is second
    assert (len(first), first.size_bytes, first.limit_bytes) == (0, 0, 100)
    assert len(cache) == 1
