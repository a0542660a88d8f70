# SPDX-License-Identifier: Apache-2.0
"""One CSV per run: a row per image with its nuclei of every class and their density, or why it failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tral_monai.inference.run_table import RunTable
from tral_monai.inference.slide_writer import SlideResult


def count_rows(results: Iterable[SlideResult]) -> list[dict[str, Any]]:
    """The rows of the table, all with the same columns.

    Columns: ``image, status, analysed_mm2, nuclei, <class> ..., <class>_per_mm2 ..., not_analysed_tiles,
    not_analysed_mm2, seconds, error``; a failed image has empty cells. A density is of the area looked at
    (``analysed_mm2``), which is of tissue where a tissue mask was used; of an image without such an area its cell is
    empty. ``not_analysed_mm2`` could not be decoded and counts for no density.

    Args:
        results: images of a run; of kept ones the record of the earlier run counts.

    Returns:
        One row per image, in the order given.
    """
    rows: list[dict[str, Any]] = []
    counts: dict[str, None] = {}
    densities: dict[str, None] = {}
    for result in results:
        found = result.record.get("result", {}) if result.status != "failed" else {}
        lost = found.get("not_analysed", {})
        count = dict(found.get("nuclei_of_class", {}))
        density = {f"{name}_per_mm2": value for name, value in found.get("nuclei_per_mm2", {}).items()}
        counts.update(dict.fromkeys(count))
        densities.update(dict.fromkeys(density))
        rows.append(
            {
                "image": result.name,
                "status": result.status,
                "analysed_mm2": round(found["analysed_mm2"], 6) if "analysed_mm2" in found else "",
                "nuclei": found.get("nuclei", ""),
                **count,
                **{name: "" if value is None else value for name, value in density.items()},
                "not_analysed_tiles": lost.get("tiles", ""),
                "not_analysed_mm2": round(lost["mm2"], 6) if "mm2" in lost else "",
                "seconds": result.record.get("seconds", "") if found else "",
                "error": result.error or "",
            }
        )
    last = ["not_analysed_tiles", "not_analysed_mm2", "seconds", "error"]
    order = ["image", "status", "analysed_mm2", "nuclei", *counts, *densities, *last]
    return [{column: row.get(column, "") for column in order} for row in rows]


class CountsWriter(RunTable):
    """Keeps ``counts.csv`` of the run up to date after every image.

    Args:
        file_name: name of the table in the output folder.

    Raises:
        ConfigError: ``file_name`` holds a folder or is no ``.csv``.
    """

    def __init__(self, file_name: str = "counts.csv") -> None:
        super().__init__(file_name)

    def rows(self, results: Iterable[SlideResult]) -> list[dict[str, Any]]:  # noqa: D102
        return count_rows(results)
