# SPDX-License-Identifier: Apache-2.0
"""A lock between threads and processes that is waited for, for a while."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tral_monai.errors import BusyError, ConfigError, LedgerError
from tral_monai.rounds.run_lock import RunLock


@contextlib.contextmanager
def waiting_lock(folder: Path, *, patience_s: float, busy: str) -> Iterator[None]:
    """Hold the lock of a folder; threads of one process exclude each other too.

    Args:
        folder: the folder; made where it does not exist.
        patience_s: seconds to wait for whoever holds it.
        busy: what is going on there, such as ``label files are being taken in already``.

    Raises:
        BusyError: somebody has held it for that long.
        ConfigError: the folder cannot be written to.
    """
    lock, end = RunLock(folder), time.monotonic() + patience_s
    while True:
        try:
            lock.acquire()
            break
        except LedgerError as error:
            if time.monotonic() > end:
                raise BusyError(f"{busy} ({error}); ask again in a minute") from error
            time.sleep(0.02)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written to ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()
