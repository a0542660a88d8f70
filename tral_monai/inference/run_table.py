# SPDX-License-Identifier: Apache-2.0
"""Base of the handlers that keep one CSV per run: a row per image, written anew after each of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ignite.engine import Events

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.inference.slide_writer import SlideResult

if TYPE_CHECKING:
    from tral_monai.inference.slide_evaluator import SlideEvaluator


class RunTable:
    """Keeps a table of the run up to date after every slide; a subclass implements :meth:`rows`.

    Args:
        file_name: name of the table in the output folder.

    Raises:
        ConfigError: ``file_name`` holds a folder or is no ``.csv``.
    """

    def __init__(self, file_name: str) -> None:
        if not file_name.endswith(".csv") or "/" in file_name or "\\" in file_name:
            raise ConfigError(f"file_name must be the name of a .csv file without a folder, but is '{file_name}'")
        self.file_name = file_name

    def rows(self, results: Iterable[SlideResult]) -> list[dict[str, Any]]:
        """The rows of the table, all with the same columns.

        Args:
            results: slides of a run; of skipped ones the record of the earlier run counts.

        Returns:
            One row per slide, in the order given.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement rows()")

    def attach(self, engine: SlideEvaluator) -> None:
        """Bind to the end of every slide.

        Args:
            engine: the evaluator whose slides to list.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: SlideEvaluator) -> None:
        """Write the table of the slides done so far.

        Args:
            engine: the evaluator.
        """
        rows = self.rows(engine.results)
        with (
            atomic_path(engine.output_dir / self.file_name) as path,
            path.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
