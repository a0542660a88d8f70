# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from tral_monai.slides.tile_cache import TileCache


def fill(cache, key, value, size=(2, 2)):
    cache.reserve(key, size)[:] = value


def test_least_recently_used_leaves_first():
    cache = TileCache(cache_bytes=3 * 12, tile_bytes=12)
    assert cache.capacity == 3
    for value, key in enumerate("abc"):
        fill(cache, key, value)
    assert cache.get("a") is not None
    fill(cache, "d", 3)
    assert cache.get("b") is None
    assert {key: int(cache.get(key)[0, 0, 0]) for key in "acd"} == {"a": 0, "c": 2, "d": 3}
    assert len(cache) == 3


def test_tiles_of_several_sizes_share_the_slots():
    cache = TileCache(cache_bytes=100, tile_bytes=3 * 4 * 2)
    fill(cache, "wide", 5, (4, 2))
    fill(cache, "small", 6, (1, 1))
    assert cache.get("wide").shape == (2, 4, 3)
    assert cache.get("small").tolist() == [[[6, 6, 6]]]
    assert (cache.get("wide") == 5).all()


def test_dropped_tile_is_gone_and_its_slot_free():
    cache = TileCache(cache_bytes=24, tile_bytes=12)
    fill(cache, "a", 1)
    fill(cache, "b", 2)
    cache.drop("b")
    fill(cache, "c", 3)
    assert cache.get("b") is None
    assert (cache.get("a") == 1).all()


def test_holds_the_least_that_the_work_needs():
    assert TileCache(cache_bytes=1, tile_bytes=12, min_tiles=5).capacity == 5
