# SPDX-License-Identifier: Apache-2.0
"""What every evaluation leaves: ``metrics.json`` with where its figures come from, and a table on the terminal."""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from rich.console import Console
from rich.table import Table

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.provenance import provenance, without_folders

METRICS_FILE = "metrics.json"


class ResultWriter(ABC):
    """Write ``<output_dir>/metrics.json`` when an evaluation ends, and show its figures as a table.

    To what :meth:`figures` gives, the file adds ``checkpoint`` (file name, SHA-256), ``info``, and ``software``
    (versions, commit, command without folders, time).

    Args:
        output_dir: where the file goes; made where it does not exist.
        checkpoint: file of the weights that are evaluated; its name and hash are recorded, not its folder.
        info: JSON values to record besides, such as the split.
        title: above the table.
        console: where the table goes; standard output by default.

    Raises:
        ConfigError: ``info`` cannot be written as JSON.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        info: Mapping[str, Any] | None = None,
        title: str | None = None,
        console: Console | None = None,
    ) -> None:
        self._info = dict(info or {})
        try:
            json.dumps(self._info)
        except TypeError as error:
            raise ConfigError(f"info must hold plain values that JSON knows, but {error}") from error
        self._output_dir, self._title = Path(output_dir), title
        self._checkpoint = Path(checkpoint) if checkpoint is not None else None
        self._console = console or Console(highlight=False)

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """The evaluation's own part of the file, as plain data."""

    @abstractmethod
    def table(self) -> Table:
        """The table for the terminal; ``title`` is set afterwards."""

    def attach(self, engine: Engine) -> None:
        """Act when the evaluation is complete."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file, then show the table."""
        checkpoint = None
        if self._checkpoint is not None:
            checkpoint = {"name": self._checkpoint.name, "sha256": file_sha256(self._checkpoint)}
        software = without_folders(provenance())
        record = {**self.figures(), "checkpoint": checkpoint, "info": self._info, "software": software}
        self._output_dir.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._output_dir / METRICS_FILE) as path:
            path.write_text(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
        table = self.table()
        table.title, table.title_justify = self._title, "left"
        self._console.print(table)


def number_or_null(value: float) -> float | None:
    """The value for JSON: an undefined one is null."""
    return None if math.isnan(value) else float(value)


def shown(value: float) -> str:
    """The value for a table: three decimals, a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.3f}"
