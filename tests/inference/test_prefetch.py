# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.inference.prefetch import prefetch


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tral_monai-prefetch"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_order_is_kept(depth: int) -> None:
    assert list(prefetch(range(50), depth=depth)) == list(range(50))
    assert not readers()


def test_it_reads_ahead_but_no_further_than_asked() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(20):
            read.append(number)
            yield number

    items = prefetch(source(), depth=2)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(read) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert read == [0, 1, 2, 3]  # one taken, two waiting, one in the reader's hand
    assert list(items) == list(range(1, 20))


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise SlideReadError("region (0, 0) cannot be decoded")

    items = prefetch(source(), depth=3)
    assert next(items) == 1
    with pytest.raises(SlideReadError, match="cannot be decoded"):
        next(items)
    assert not readers()


def test_leaving_early_stops_the_thread() -> None:
    items = prefetch(iter(int, 1), depth=1)  # endless
    next(items)
    items.close()
    assert not readers()


def test_depth_is_checked() -> None:
    with pytest.raises(ConfigError, match="depth must be 0 or more, but is -1"):
        prefetch([], depth=-1)
