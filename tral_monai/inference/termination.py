# SPDX-License-Identifier: Apache-2.0
"""SIGTERM, as a job scheduler or a shutdown sends it, ends a run as Ctrl-C does: files closed, terminal given back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell reports of a process that SIGTERM ended."""


@contextlib.contextmanager
def orderly_termination() -> Iterator[None]:
    """Turn SIGTERM into ``SystemExit(143)`` inside the block, so that what must be cleaned up is.

    Does nothing in another thread than the main one, which alone may do this, or where the program has a handler of its
    own.

    Raises:
        SystemExit: in the block, when the signal comes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_CODE)
