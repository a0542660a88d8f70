# SPDX-License-Identifier: Apache-2.0
"""An act that follows the last of many events, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Debounced:
    """Runs a function once nothing has been reported for a while; never twice at a time.

    Args:
        act: the function; it lets no error out.
        wait_s: seconds without an event.
    """

    def __init__(self, act: Callable[[], None], wait_s: float) -> None:
        self._act, self._wait_s = act, wait_s
        self._lock, self._running = threading.Lock(), threading.Lock()
        self._timer: threading.Timer | None = None

    def report(self) -> None:
        """Something has happened; the wait begins anew."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._wait_s, self._run)
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """Forget what was reported."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()

    def _run(self) -> None:
        with self._running:
            self._act()
