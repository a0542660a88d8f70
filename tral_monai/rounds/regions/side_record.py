# SPDX-License-Identifier: Apache-2.0
"""Which slides are held out, remembered for good in a file that several processes may change."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.waiting_lock import waiting_lock

Axis = Literal["x", "y"]
Side = Literal["train", "val", "split"]
"""Where a slide's regions go. ``split`` divides one slide along its longer side: for a site with a single slide."""
_PATIENCE_S = 60.0


class Sides(TypedDict):
    """What is remembered: the side of each slide by file name, and where a single slide is divided."""

    sides: dict[str, Side]
    cuts: dict[str, tuple[Axis, int]]


class SideRecord:
    """The file.

    Args:
        path: JSON file; made, with its folder, when the first side is given.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.RLock()

    def load(self) -> Sides:
        """What the file says now.

        Raises:
            ConfigError: it is damaged.
        """
        record: Sides = {"sides": {}, "cuts": {}}
        if self.path.is_file():
            try:
                record.update(json.loads(self.path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ConfigError(
                    f"{self.path} is damaged ({error}); restore it: it says which slides are held out, and a new "
                    "draw would train on some of them"
                ) from error
        return record

    @contextlib.contextmanager
    def change(self) -> Iterator[Sides]:
        """What the file says, to be changed in the block: no other thread or process changes it meanwhile.

        Raises:
            ConfigError: it is damaged, or its folder cannot be written to.
            BusyError: somebody else has been changing it for a minute.
            OutputError: it cannot be written.
        """
        busy = f"{self.path.name} is being written already"
        with self._lock, waiting_lock(self.path.with_suffix(""), patience_s=_PATIENCE_S, busy=busy):
            record = self.load()
            before = copy.deepcopy(record)
            yield record
            if record != before:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(self.path) as temporary:
                    temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
