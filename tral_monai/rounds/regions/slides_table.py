# SPDX-License-Identifier: Apache-2.0
"""The table in which a lab says whose slides they are, which are held out, and what they do not record themselves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from tral_monai.annotations.text_file import read_text
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.slide_listing import slide_id

_COLUMNS = ("slide", "patient", "split", "mpp", "areas")


def read_slides_table(file: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The rows of the slides that are there, by file name; cells are empty or valid.

    Args:
        file: CSV with ``slide`` (file name or id) and any of ``patient, split, mpp, areas``.
        names: file names of the slides.

    Raises:
        ConfigError: a column or a cell is wrong; the message names its line.
        AnnotationError: the file cannot be read.
    """
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
    columns = [column.strip().lower() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    strangers = [column for column in columns if column not in _COLUMNS]
    if "slide" not in columns or strangers:
        raise ConfigError(f"{file.name}: expected the column slide and any of {_COLUMNS[1:]}, but found {columns}")
    there = set(names)
    by_id = {slide_id(name): name for name in names}
    rows: dict[str, dict[str, str]] = {}
    for row in reader:
        cells = {key: (value or "").strip() for key, value in row.items() if key}
        name = cells["slide"] if cells["slide"] in there else by_id.get(cells["slide"])
        where = f"{file.name}, line {reader.line_num}"
        if cells.get("split") not in (None, "", "train", "val"):
            raise ConfigError(f"{where}: split must be train, val or empty, but is '{cells['split']}'")
        if cells.get("mpp") and not _is_mpp(cells["mpp"]):
            raise ConfigError(f"{where}: mpp must be micrometres per pixel, such as 0.25, but is '{cells['mpp']}'")
        if cells.get("areas") and not path_beside(file, cells["areas"]).is_file():
            raise ConfigError(f"{where}: there is no annotation file '{cells['areas']}' of the areas")
        if name is not None:  # a slide that is not there (yet) does no harm
            rows[name] = cells
    return rows


def path_beside(file: Path, cell: str) -> Path:
    """The path that a cell of a table means: relative ones begin at the table's folder."""
    return file.absolute().parent / cell


def _is_mpp(text: str) -> bool:
    try:
        return 0.01 <= float(text) <= 100 and math.isfinite(float(text))
    except ValueError:
        return False
