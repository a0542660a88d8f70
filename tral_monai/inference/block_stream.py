# SPDX-License-Identifier: Apache-2.0
"""Blocks of a slide decoded ahead by threads, handed over in a fixed order through a bounded queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError
from tral_monai.slides.canvases import CanvasBlock, CanvasReader


def block_stream(
    reader: CanvasReader, centres_level0: npt.NDArray[np.int64], *, num_workers: int = 1, read_ahead: int = 2
) -> Generator[CanvasBlock, None, None]:
    """Yield all blocks around some centres, always in the same order.

    At most ``num_workers + read_ahead`` blocks are being decoded or wait, whatever the slide's size. Closing the
    generator, or leaving it by an error, stops the threads after the blocks that they are at.

    Args:
        reader: reads the blocks.
        centres_level0: (n, 2) int64 centres (x, y).
        num_workers: threads that decode; 0 reads in the calling thread, without reading ahead.
        read_ahead: decoded blocks that may wait for the model, besides those in work.

    Yields:
        The blocks; every centre is in one of them, as read or as failed.

    Raises:
        ConfigError: ``num_workers`` or ``read_ahead`` is negative.
    """
    if num_workers < 0:
        raise ConfigError(f"num_workers must be 0 or more, but is {num_workers}")
    if read_ahead < 0:
        raise ConfigError(f"read_ahead must be 0 or more, but is {read_ahead}")
    return _stream(reader, centres_level0, num_workers, read_ahead)


def _stream(
    reader: CanvasReader, centres: npt.NDArray[np.int64], num_workers: int, read_ahead: int
) -> Generator[CanvasBlock, None, None]:
    plan = iter(reader.plan(centres))
    if num_workers == 0:
        for indices in plan:
            yield reader.read(centres, indices)
        return
    threads = ThreadPoolExecutor(num_workers, thread_name_prefix="tral_monai-decode")
    waiting: deque[Future[CanvasBlock]] = deque()
    try:
        for indices in plan:
            waiting.append(threads.submit(reader.read, centres, indices))
            if len(waiting) >= num_workers + read_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
