# SPDX-License-Identifier: Apache-2.0
"""How far the making of a query is, for those who wait for it in other threads and processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tral_monai.atomic_file import atomic_path
from tral_monai.progress import Progress

_FILE = "progress.json"
_EVERY_S = 1.0


class QueryNote:
    """Keeps a note beside the lock of whoever makes a query; calling it with (done, to do) brings it up to date.

    Args:
        folder: the lock's folder.
        also: told the same.

    Raises:
        OutputError: the note cannot be written.
    """

    def __init__(self, folder: Path, also: Progress | None = None) -> None:
        self._file, self._also = folder / _FILE, also
        self._began_s, self._wrote_s = time.time(), 0.0
        self._write(0, 0)

    def __call__(self, done: int, total: int) -> None:
        """Note how far it is, at most once a second."""
        if self._also is not None:
            self._also(done, total)
        if time.monotonic() - self._wrote_s >= _EVERY_S:
            self._write(done, total)

    def remove(self) -> None:
        """Remove the note once the query is made."""
        self._file.unlink(missing_ok=True)

    def _write(self, done: int, total: int) -> None:
        self._wrote_s = time.monotonic()
        with atomic_path(self._file) as temporary:
            temporary.write_text(json.dumps({"done": done, "total": total, "since": self._began_s}), encoding="utf-8")


def how_far(folder: Path) -> str:
    """What the note in a lock's folder says: ``3 of 16 slides looked at, for 12 s``; empty where there is none.

    Args:
        folder: the lock's folder.
    """
    try:
        note = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        seconds = f"for {max(time.time() - note['since'], 0):.0f} s"
        return f"{note['done']} of {note['total']} slides looked at, {seconds}" if note["total"] else seconds
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or none any more: it only informs
        return ""
