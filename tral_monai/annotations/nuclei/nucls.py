# SPDX-License-Identifier: Apache-2.0
"""NuCLS (breast cancer, TCGA): the published folders, or two tables without images.

The published layout has ``rgb/<fov>.png`` (or no folder ``rgb``), ``csv/<fov>.csv`` and ``csv/ALL_FOV_LOCATIONS.csv``;
the names of the columns and of that file vary in case, and older files call ``raw_classification`` ``group``. The two
tables are ``annotations.csv`` (a column ``fovname`` in front of the same columns) and ``fovs.csv``.

A picture shows more than was annotated: the field of view (FOV) lies inside it; nuclei on its edge were drawn whole.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tral_monai.annotations.nuclei.boxes import IGNORED_CLASS, fit_boxes, unnamed_class_problem
from tral_monai.annotations.nuclei.files import check_names, image_files, image_size_px, note_or_raise, tcga_origin
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.annotations.nuclei.nucls_classes import (
    AMBIGUOUS,
    RAW_CLASSES,
    NuclsLevel,
    nucls_class_map,
    raw_class,
)
from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError, ConfigError

MPP = 0.2
"""Micrometres per pixel of the published pictures."""

Row = dict[str, str]
Box = tuple[float, float, float, float]

_LOCATIONS = "all_fov_locations.csv"
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_nucls(
    folder: str | os.PathLike[str],
    *,
    class_level: NuclsLevel = "paper",
    area: Literal["fov", "image"] = "fov",
    mpp: float = MPP,
    problems: list[str] | None = None,
) -> list[NucleusField]:
    """Read NuCLS.

    Nuclei marked ``unlabeled`` or ``apoptotic_body`` are ignored, the prefix ``correction_`` is dropped, and rows of
    type ``point`` (no box was drawn) are left out and counted in the field's problems.

    Args:
        folder: Folder of either layout.
        class_level: Names to use: the paper's seven, or NuCLS's raw, main or super classes.
        area: ``fov`` keeps the annotated part of each picture; a nucleus of which less than half lies inside is
            ignored. ``image`` keeps the whole picture (without pictures: the FOV and all its nuclei), in whose margin
            not every nucleus was annotated.
        mpp: Micrometres per pixel.
        problems: Where given, a field that cannot be read is noted here and left out.

    Raises:
        AnnotationError: Neither layout is there, a table lacks columns, or a field cannot be read while ``problems``
            is not given.
        ConfigError: An unknown level or area.
    """
    root = Path(folder)
    class_map = nucls_class_map(class_level)
    if area not in ("fov", "image"):
        raise ConfigError(f"area of NuCLS must be 'fov' or 'image', but is '{area}'")
    if (root / "csv").is_dir():
        fields = _read_published(root, class_map, area, mpp, problems)
    elif (root / "annotations.csv").is_file() and (root / "fovs.csv").is_file():
        fields = _read_tables(root, class_map, area, mpp, problems)
    else:
        raise AnnotationError(
            f"{root.name}: expected NuCLS's folders csv/ and rgb/, or the tables annotations.csv and fovs.csv; "
            f"check the path {root}"
        )
    check_names(fields, root.name)
    return fields


def _read_published(
    root: Path, class_map: dict[str, str], area: str, mpp: float, problems: list[str] | None
) -> list[NucleusField]:
    tables = {path.stem: path for path in sorted((root / "csv").glob("[!.]*.csv")) if path.name.lower() != _LOCATIONS}
    pictures = next((root / name for name in ("rgb", "rgbs") if (root / name).is_dir()), None)
    images = image_files(pictures) if pictures else {}
    folders = (root / "csv", root)
    location_files = (path for place in folders for path in sorted(place.iterdir()) if path.name.lower() == _LOCATIONS)
    location_file = next(location_files, None)
    locations = _locations(location_file) if location_file else {}
    fields = []
    for name, table in tables.items():
        try:
            if pictures and name not in images:
                raise AnnotationError(
                    f"{table.name}: there is no image '{name}.png' in {pictures.name}/; add it or remove the CSV"
                )
            fields.append(
                _field(
                    name, _rows(table), locations.get(name), class_map, area, mpp, image=images.get(name), file=table
                )
            )
        except AnnotationError as error:
            note_or_raise(error, problems)
    for name in sorted(images.keys() - tables.keys()):
        note_or_raise(AnnotationError(f"{images[name].name}: there is no table '{name}.csv' in csv/"), problems)
    return fields


def _read_tables(
    root: Path, class_map: dict[str, str], area: str, mpp: float, problems: list[str] | None
) -> list[NucleusField]:
    locations = _locations(root / "fovs.csv")
    file = root / "annotations.csv"
    rows: dict[str, list[Row]] = {name: [] for name in locations}
    for row in _rows(file, "fovname"):
        rows.setdefault(row["fovname"], []).append(row)
    fields = []
    for name, field_rows in rows.items():
        try:
            if name not in locations:
                raise AnnotationError(f"annotations.csv: the field '{name}' is not in fovs.csv; add its extent there")
            fields.append(_field(name, field_rows, locations[name], class_map, area, mpp, image=None, file=file))
        except AnnotationError as error:
            note_or_raise(error, problems)
    return fields


def _field(
    name: str,
    rows: Iterable[Row],
    fov: Box | None,
    class_map: dict[str, str],
    area: str,
    mpp: float,
    *,
    image: Path | None,
    file: Path,
) -> NucleusField:
    boxes: list[Box] = []
    classes: list[str] = []
    unmapped: Counter[str] = Counter()
    points = 0
    for row in rows:
        raw = raw_class(row["raw_classification"])
        if raw.startswith("fov"):  # older tables hold the FOV itself as a row
            fov = fov or _box(row, file)
            continue
        if row.get("type", "").strip().lower() == "point":
            points += 1
            continue
        boxes.append(_box(row, file))
        classes.append(class_map.get(raw, IGNORED_CLASS))
        if raw not in class_map and raw not in AMBIGUOUS:
            unmapped[raw] += 1
    left, top, right, bottom = _area_px(name, image, fov, boxes, area)
    fitted = fit_boxes(
        boxes,
        classes,
        [class_name == IGNORED_CLASS for class_name in classes],
        name=name,
        area_px=(left, top, right, bottom),
        cut_is_expected=area == "fov",
        min_visible=0.5 if area == "fov" else 0.0,
    )
    noted = [f"{name}: nuclei marked with a point only, without a box, left out: {points}"] if points else []
    patient, hospital = tcga_origin(name)
    return NucleusField(
        name=name,
        image=image,
        width_px=right - left,
        height_px=bottom - top,
        mpp=mpp,
        boxes_px=fitted.boxes_px,
        classes=fitted.classes,
        ignored=fitted.ignored,
        left_px=left,
        top_px=top,
        slide=_slide(name),
        patient=patient,
        hospital=hospital,
        problems=(*noted, *unnamed_class_problem(name, unmapped, (*RAW_CLASSES, *AMBIGUOUS)), *fitted.problems),
    )


def _area_px(name: str, image: Path | None, fov: Box | None, boxes: list[Box], area: str) -> tuple[int, int, int, int]:
    """The annotated area in pixels of the picture, whole pixels."""
    picture = (0, 0, *image_size_px(image)) if image else None
    if picture and (area == "image" or fov is None):
        return picture
    if fov is None:
        raise AnnotationError(f"{name}: neither a picture nor an extent of the field is there; give one of them")
    left, top, right, bottom = (round(side) for side in fov)
    if area == "image":  # no picture: what is known of it is that it holds the FOV and all its nuclei
        sides = [box for box in boxes if box[2] > box[0] and box[3] > box[1]]
        left, top = 0, 0
        right, bottom = max([right, *(round(s[2]) for s in sides)]), max([bottom, *(round(s[3]) for s in sides)])
    elif picture:
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, picture[2]), min(bottom, picture[3])
    if left >= right or top >= bottom:
        raise AnnotationError(
            f"{name}: the extent of the field {tuple(fov)} holds no pixel of the picture"
            f"{f' of {picture[2]} x {picture[3]} px' if picture else ''}; correct it in {_LOCATIONS.upper()}"
        )
    return left, top, right, bottom


def _slide(name: str) -> str:
    match = re.search(r"TCGA-[A-Za-z0-9-]+", name)
    return match[0] if match else name.split("_")[0]


def _locations(file: Path) -> dict[str, Box]:
    locations: dict[str, Box] = {}
    for row in _rows(file, "fovname", classes=False):
        if row["fovname"] in locations:
            raise AnnotationError(f"{file.name}: the field '{row['fovname']}' has two rows; remove one of them")
        locations[row["fovname"]] = _box(row, file)
    return locations


def _rows(file: Path, *keys: str, classes: bool = True) -> list[Row]:
    """The rows of a table under lower-case names, without the contours."""
    try:
        table = list(csv.reader(io.StringIO(read_text(file), newline="")))
    except csv.Error as error:
        raise AnnotationError(f"{file.name}: not a CSV table that can be read ({error}); copy it again") from error
    names = [name.strip().lower() for name in table[0]] if table else []
    names = ["raw_classification" if name == "group" and classes else name for name in names]
    needed = (*keys, *(("raw_classification",) if classes else ()), *_SIDES)
    missing = [name for name in needed if name not in names]
    if missing:
        raise AnnotationError(f"{file.name}: lacks the columns {missing}; a table of NuCLS has {list(needed)}")
    columns = {name: names.index(name) for name in (*needed, "type") if name in names}
    last = max(columns.values())
    rows = []
    for number, cells in enumerate(table[1:], start=2):
        if not cells:
            continue
        if len(cells) <= last:
            raise AnnotationError(
                f"{file.name}, line {number}: expected {len(names)} cells, but found {len(cells)}; "
                "the file may have been cut off, copy it again"
            )
        rows.append({name: cells[column] for name, column in columns.items()})
    return rows


def _box(row: Row, file: Path) -> Box:
    try:
        return float(row["xmin"]), float(row["ymin"]), float(row["xmax"]), float(row["ymax"])
    except ValueError as error:
        found = [row[side] for side in _SIDES]
        raise AnnotationError(f"{file.name}: expected xmin, ymin, xmax, ymax as numbers, but found {found}") from error
