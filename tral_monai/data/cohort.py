# SPDX-License-Identifier: Apache-2.0
"""The cohort: which slides there are, whose they are, how they are annotated and which side of the split they are on.

A cohort is a CSV with the columns ``slide, annotations, patient, split`` and, where needed, ``mpp, part``.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tral_monai.errors import CohortError, PatientOverlapError

SPLITS = ("train", "val", "test", "pool")
"""Values of the column ``split``. ``pool`` is what may be labelled next; it is on the same side as ``train``."""

REQUIRED_COLUMNS = ("slide", "annotations", "patient", "split")
OPTIONAL_COLUMNS = ("mpp", "part")

_SHOWN = 20  # problems named in one message


@dataclass(frozen=True)
class CohortRow:
    """One row of a cohort.

    Attributes:
        slide: path of the slide.
        annotations: path of its annotations; None only in the split ``pool``.
        patient: the patient's code.
        split: ``train``, ``val``, ``test`` or ``pool``.
        mpp: micrometres per level-0 pixel to use instead of what the slide records.
        part: only annotations of this name belong to the row; None for all.
        line: line of the file, 1 being the header; 0 for rows made in Python.
    """

    slide: Path
    annotations: Path | None
    patient: str
    split: str
    mpp: float | None = None
    part: str | None = None
    line: int = 0

    @property
    def side(self) -> str:
        """``train`` (with the pool), ``val`` or ``test``: a patient may be on one side only."""
        return "train" if self.split == "pool" else self.split


@dataclass(frozen=True)
class Cohort:
    """The rows of a cohort, in the order of the file."""

    rows: tuple[CohortRow, ...]

    def split(self, name: str) -> tuple[CohortRow, ...]:
        """Rows of one split.

        Args:
            name: the split.
        """
        return tuple(row for row in self.rows if row.split == name)

    def by_slide(self) -> dict[Path, tuple[CohortRow, ...]]:
        """Rows of each slide, in the order in which the slides first appear."""
        slides: dict[Path, list[CohortRow]] = {}
        for row in self.rows:
            slides.setdefault(row.slide, []).append(row)
        return {slide: tuple(rows) for slide, rows in slides.items()}


def read_cohort(path: str | os.PathLike[str], *, allow_patient_overlap: bool = False) -> Cohort:
    """Read and check a cohort CSV.

    Args:
        path: CSV file, UTF-8, comma-separated, with a header. Relative paths in it start at its folder. Columns other
            than those of this module are ignored, and so are empty lines.
        allow_patient_overlap: accept a patient on two sides of the split.

    Returns:
        The cohort.

    Raises:
        CohortError: the file cannot be read, a column is missing, or rows are wrong; every wrong row is named with its
            line.
        PatientOverlapError: a patient is on two sides of the split and ``allow_patient_overlap`` is False.
    """
    path = Path(path)
    records, has_columns = _read(path)
    problems: list[str] = []
    rows = []
    for line, record in records:
        found: list[str] = []
        row = _row(record, line, path.parent, found.append)
        problems += [f"line {line}: {problem}" for problem in found]
        if row is not None and not found:
            rows.append(row)
    if not records:
        raise CohortError(
            f"{path.name}: there are no rows below the header {', '.join(has_columns)}; add one per slide"
        )
    problems += _contradictions(rows)
    if problems:
        raise CohortError(_message(path, problems, "correct them and run again"))
    overlaps = _overlaps(rows)
    if overlaps and not allow_patient_overlap:
        raise PatientOverlapError(
            _message(path, overlaps, "move their slides to one side, or set allow_patient_overlap if that is meant")
        )
    return Cohort(tuple(rows))


def _read(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line, column -> cell) of every row that is not empty, and the header."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CohortError(f"cohort {path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise CohortError(f"{path.name}: expected UTF-8 text; save it as 'CSV UTF-8 (comma delimited)'") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise CohortError(f"{path.name}, line {reader.line_num}: not valid CSV ({error}); check the quotes") from error
    if not lines:
        raise CohortError(f"{path.name}: the file is empty; expected the columns {_columns()}")
    header = [cell.lower() for cell in lines[0][1]]
    for other, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and other in header[0]:
            raise CohortError(f"{path.name}: the columns are separated by {name}; save it with commas instead")
    missing = [column for column in REQUIRED_COLUMNS if column not in header]
    if missing:
        raise CohortError(
            f"{path.name}: missing columns {', '.join(missing)}; expected {_columns()}, found {lines[0][1]}"
        )
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise CohortError(f"{path.name}: the column {', '.join(twice)} stands more than once")
    records = []
    for line, cells in lines[1:]:
        if len(cells) > len(header):
            raise CohortError(
                f"{path.name}, line {line}: {len(cells)} cells for {len(header)} columns; put text with commas in "
                "quotes"
            )
        records.append((line, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))))
    return records, header


def _row(record: dict[str, str], line: int, folder: Path, report: Callable[[str], None]) -> CohortRow | None:
    for column in ("slide", "patient", "split"):
        if not record[column]:
            report(f"the cell '{column}' is empty")
    split = record["split"]
    if split and split not in SPLITS:
        hint = f"; write '{split.lower()}'" if split.lower() in SPLITS else ""
        report(f"unknown split '{split}', expected {', '.join(SPLITS)}{hint}")
    elif split != "pool" and not record["annotations"]:
        report("the cell 'annotations' is empty, which only the split pool allows")
    if record.get("part") and not record["annotations"]:
        report(f"there is a part '{record['part']}' but there are no annotations that it could be a part of")
    mpp = None
    if record.get("mpp"):
        try:
            mpp = float(record["mpp"])
        except ValueError:
            mpp = math.nan
        if not (math.isfinite(mpp) and 0.01 <= mpp <= 100):
            report(f"mpp must be micrometres per pixel, such as 0.25 for a 40x scan, but is '{record['mpp']}'")
    files = []
    for column in ("slide", "annotations"):
        # Not resolved: a link's own name is what outputs call the slide.
        file = Path(os.path.normpath(folder.absolute() / record[column])) if record[column] else None
        if file is not None and not file.exists():
            report(f"{column} '{record[column]}' does not exist ({file})")
        files.append(file)
    slide, annotations = files
    if slide is None:
        return None
    return CohortRow(slide, annotations, record["patient"], split, mpp, record.get("part") or None, line)


def _contradictions(rows: list[CohortRow]) -> Iterator[str]:
    """Rows that cannot stand beside each other."""
    names: dict[str, CohortRow] = {}
    for row in rows:
        first = names.setdefault(row.slide.name, row)
        if first.slide != row.slide:
            yield (
                f"lines {first.line} and {row.line}: two slides have the name '{row.slide.name}', but outputs name a "
                "slide by its file name; rename one"
            )
    for slide, group in Cohort(tuple(rows)).by_slide().items():
        parts: dict[str | None, CohortRow] = {}
        for row in group:
            first = group[0]
            if row.patient != first.patient:
                yield (
                    f"lines {first.line} and {row.line}: slide '{slide.name}' has two patients, '{first.patient}' and "
                    f"'{row.patient}'"
                )
            if row.mpp != first.mpp:
                yield f"lines {first.line} and {row.line}: slide '{slide.name}' has two mpp, {first.mpp} and {row.mpp}"
            same = parts.setdefault(row.part, row)
            if same is not row:
                what = f"with the part '{row.part}'" if row.part else "without a part"
                yield f"lines {same.line} and {row.line}: slide '{slide.name}' stands twice {what}"
        if len(parts) > 1 and None in parts:
            yield (
                f"line {parts[None].line}: slide '{slide.name}' stands in several rows, so each needs its own part "
                "(a name of annotations)"
            )


def _overlaps(rows: list[CohortRow]) -> list[str]:
    sides: dict[str, dict[str, CohortRow]] = {}
    for row in rows:
        sides.setdefault(row.patient, {}).setdefault(row.side, row)
    return [
        f"patient '{patient}' is on the sides " + ", ".join(f"{side} (line {row.line})" for side, row in found.items())
        for patient, found in sides.items()
        if len(found) > 1
    ]


def _message(path: Path, problems: list[str], remedy: str) -> str:
    shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
    more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{path.name} has {count}; {remedy}:{shown}{more}"


def _columns() -> str:
    return f"{', '.join(REQUIRED_COLUMNS)} (and optionally {', '.join(OPTIONAL_COLUMNS)})"
