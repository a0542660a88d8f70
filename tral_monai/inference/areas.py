# SPDX-License-Identifier: Apache-2.0
"""One CSV per run: a row per slide with its areas, or why it failed."""

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


def area_rows(results: Iterable[SlideResult]) -> list[dict[str, Any]]:
    """The rows of the table, all with the same columns.

    Columns: ``slide, status, tissue_tiles, tissue_mm2, <class>_mm2 ..., not_analysed_tiles, seconds, error``; a class
    without tissue on a slide has 0, a failed slide has empty cells.

    Args:
        results: slides of a run; of skipped ones the record of the earlier run counts.

    Returns:
        One row per slide, in the order given.
    """
    rows, classes = [], dict[str, None]()
    for result in results:
        found = result.record.get("result", {}) if result.status != "failed" else {}
        areas = {f"{name}_mm2": round(area, 6) for name, area in found.get("areas_mm2", {}).items()}
        classes.update(dict.fromkeys(areas))
        rows.append(
            {
                "slide": result.name,
                "status": result.status,
                "tissue_tiles": found.get("tissue_tiles", ""),
                "tissue_mm2": round(found["tissue_mm2"], 6) if "tissue_mm2" in found else "",
                **areas,
                "not_analysed_tiles": found.get("not_analysed", {}).get("tiles", ""),
                "seconds": result.record.get("seconds", "") if found else "",
                "error": result.error or "",
            }
        )
    order = ["slide", "status", "tissue_tiles", "tissue_mm2", *classes, "not_analysed_tiles", "seconds", "error"]
    return [{column: row.get(column, "") for column in order} for row in rows]


class AreasWriter:
    """Keeps ``areas.csv`` of the run up to date after every slide.

    Args:
        file_name: name of the table in the output folder.

    Raises:
        ConfigError: ``file_name`` holds a folder or is no ``.csv``.
    """

    def __init__(self, file_name: str = "areas.csv") -> None:
        if not file_name.endswith(".csv") or "/" in file_name or "\\" in file_name:
            raise ConfigError(f"file_name must be the name of a .csv file without a folder, but is '{file_name}'")
        self.file_name = file_name

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
        rows = area_rows(engine.results)
        with (
            atomic_path(engine.output_dir / self.file_name) as path,
            path.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
