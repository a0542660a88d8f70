# SPDX-License-Identifier: Apache-2.0
"""Base of the handlers that keep one CSV per output folder: a row per image, written anew after each of them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ignite.engine import Events

from tral_monai.atomic_file import atomic_path, remove_half_written
from tral_monai.errors import ConfigError
from tral_monai.inference.provenance import RECORD_SUFFIX
from tral_monai.inference.slide_list import output_stem
from tral_monai.inference.slide_writer import SlideResult

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator


_log = logging.getLogger(__name__)
Row = dict[str, Any]


class RunTable:
    """Keeps a table of the output folder up to date after every slide; a subclass implements :meth:`rows`.

    Rows of an earlier run stay until their slide is done again, so that a run that goes on after a kill, or over a part
    of the slides only, loses none. When a run ends, rows of earlier slides go whose record is not there any more.

    Args:
        file_name: name of the table in the output folder.

    Raises:
        ConfigError: ``file_name`` holds a folder or is no ``.csv``.
    """

    def __init__(self, file_name: str) -> None:
        if not file_name.endswith(".csv") or "/" in file_name or "\\" in file_name:
            raise ConfigError(f"file_name must be the name of a .csv file without a folder, but is '{file_name}'")
        self.file_name = file_name
        self._earlier: list[Row] = []

    def rows(self, results: Iterable[SlideResult]) -> list[dict[str, Any]]:
        """The rows of the table, all with the same columns.

        Args:
            results: slides of a run; of kept ones the record of the earlier run counts.

        Returns:
            One row per slide, in the order given; the first column is the slide's file name.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement rows()")

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the end of every slide.

        Args:
            engine: the evaluator whose slides to list.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def __call__(self, engine: SlideEvaluator) -> None:
        """Write the rows of the slides done so far, and those of an earlier run.

        Args:
            engine: the evaluator.
        """
        self._write(engine.output_dir / self.file_name, self.rows(engine.results), self._earlier)

    def _start(self, engine: SlideEvaluator) -> None:
        remove_half_written(engine.output_dir, Path(self.file_name).stem)
        self._earlier = _read(engine.output_dir / self.file_name)

    def _finish(self, engine: SlideEvaluator) -> None:
        """Forget slides of an earlier run that failed and were not looked at again, or whose files were taken away."""
        if not engine.results:
            return
        rows = self.rows(engine.results)
        names = {_name(row) for row in rows}

        def stays(name: str) -> bool:
            return name in names or (engine.output_dir / f"{output_stem(name)}{RECORD_SUFFIX}").is_file()

        self._write(engine.output_dir / self.file_name, rows, [row for row in self._earlier if stays(_name(row))])

    @staticmethod
    def _write(target: Path, rows: list[Row], earlier: list[Row]) -> None:
        known = {_name(row): row for row in earlier} | {_name(row): row for row in rows}  # keeps the earlier order
        columns = list(rows[0])
        for row in known.values():
            columns = _merged(columns, [column for column, value in row.items() if value != ""])
        with atomic_path(target) as path, path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=columns, restval="")
            writer.writeheader()
            writer.writerows(known.values())


def _name(row: Row) -> str:
    """The slide's file name, which is the first column."""
    return str(next(iter(row.values())))


def _merged(columns: list[str], others: Sequence[str]) -> list[str]:
    """The columns with those that they lack, each behind the one that it followed."""
    merged = list(columns)
    for position, column in enumerate(others):
        if column not in merged:
            merged.insert(merged.index(others[position - 1]) + 1, column)
    return merged


def _read(path: Path) -> list[Row]:
    """Rows of an earlier run's table; none where there is no table or somebody made it another kind of file."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows: list[Row] = list(csv.DictReader(stream, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        _log.warning("%s cannot be read (%s) and is written anew", path.name, error)
        return []
    if any(None in row or None in row.values() or "status" not in row for row in rows):
        _log.warning("%s is not a table of a run any more and is written anew", path.name)
        return []
    return rows
