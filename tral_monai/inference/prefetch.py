# SPDX-License-Identifier: Apache-2.0
"""Read ahead in a thread, by a bounded number of items: the model does not wait for the disk, memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

from tral_monai.errors import ConfigError

T = TypeVar("T")
_LOOK_SECONDS = 0.1  # how often a full queue looks whether the reader of the items has gone


def prefetch(items: Iterable[T], *, depth: int = 2) -> Generator[T, None, None]:
    """Yield the items of an iterable that runs in a thread of its own.

    Order is kept. An error of the iterable is raised here, after the items before it. Closing the generator, or
    leaving it by an error, stops the thread.

    Args:
        items: consumed in the thread only.
        depth: most items that wait in the queue; 0 reads in the calling thread, without reading ahead.

    Yields:
        The items.

    Raises:
        ConfigError: ``depth`` is negative.
    """
    if depth < 0:
        raise ConfigError(f"depth must be 0 or more, but is {depth}")
    return _threaded(items, depth) if depth else _direct(items)


def _direct(items: Iterable[T]) -> Generator[T, None, None]:
    yield from items


def _threaded(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:  # raised again by the consumer
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=work, name="tral_monai-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
