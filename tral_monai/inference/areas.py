# SPDX-License-Identifier: Apache-2.0
"""One CSV per run: a row per slide with its areas, or why it failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tral_monai.inference.map_classes import NOT_ANALYSED
from tral_monai.inference.run_table import RunTable
from tral_monai.inference.slide_writer import SlideResult


def area_rows(results: Iterable[SlideResult]) -> list[dict[str, Any]]:
    """The rows of the table, all with the same columns.

    Columns: ``slide, status, tissue_tiles, tissue_mm2, analysed_mm2, <class>_mm2 ..., not_analysed_tiles,
    not_analysed_mm2, seconds, error``; a class without tissue on a slide has 0, a failed slide has empty cells.
    ``tissue_mm2`` is what the tissue mask found: ``analysed_mm2`` of it was looked at, ``not_analysed_mm2`` could not
    be decoded and is part of no class, nor of the background.

    Args:
        results: slides of a run; of kept ones the record of the earlier run counts.

    Returns:
        One row per slide, in the order given.
    """
    rows, classes = [], dict[str, None]()
    for result in results:
        found = result.record.get("result", {}) if result.status != "failed" else {}
        of_class = dict(found.get("areas_mm2", {}))
        lost = of_class.pop(NOT_ANALYSED, 0.0)
        areas = {f"{name}_mm2": round(area, 6) for name, area in of_class.items()}
        classes.update(dict.fromkeys(areas))
        tissue = found.get("tissue_mm2")
        rows.append(
            {
                "slide": result.name,
                "status": result.status,
                "tissue_tiles": found.get("tissue_tiles", ""),
                "tissue_mm2": "" if tissue is None else round(tissue, 6),
                "analysed_mm2": "" if tissue is None else round(tissue - lost, 6),
                **areas,
                "not_analysed_tiles": found.get("not_analysed", {}).get("tiles", ""),
                "not_analysed_mm2": "" if tissue is None else round(lost, 6),
                "seconds": result.record.get("seconds", "") if found else "",
                "error": result.error or "",
            }
        )
    first = ["slide", "status", "tissue_tiles", "tissue_mm2", "analysed_mm2"]
    order = [*first, *classes, "not_analysed_tiles", "not_analysed_mm2", "seconds", "error"]
    return [{column: row.get(column, "") for column in order} for row in rows]


class AreasWriter(RunTable):
    """Keeps ``areas.csv`` of the run up to date after every slide.

    Args:
        file_name: name of the table in the output folder.

    Raises:
        ConfigError: ``file_name`` holds a folder or is no ``.csv``.
    """

    def __init__(self, file_name: str = "areas.csv") -> None:
        super().__init__(file_name)

    def rows(self, results: Iterable[SlideResult]) -> list[dict[str, Any]]:  # noqa: D102
        return area_rows(results)
