# SPDX-License-Identifier: Apache-2.0
"""Nuclei out of QuPath: a folder of images (or slides), each with a GeoJSON export of the same stem.

Nuclei are the detections and cells of an export (of a cell, its nucleus); where it has neither, its annotations are the
nuclei. An annotation named or classed ``field`` is no nucleus: it says which part of the image was annotated, and every
such annotation becomes a field of its own. Without one, the whole image counts as annotated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely

from tral_monai.annotations.geojson import read_geojson
from tral_monai.annotations.geometry import geometry_from_geojson
from tral_monai.annotations.model import Annotation, ShapeProblem, describe
from tral_monai.annotations.nuclei.boxes import IGNORED_CLASS, fit_boxes
from tral_monai.annotations.nuclei.files import (
    PLAIN_SUFFIXES,
    check_names,
    image_files,
    image_size_px,
    note_or_raise,
    tcga_origin,
)
from tral_monai.annotations.nuclei.image_table import ImageRow, read_image_table
from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.errors import AnnotationError, SlideError

FIELD = "field"
"""Name or class, in any case, of an annotation that says which part of the image was annotated."""

Area = tuple[int, int, int, int]


def read_qupath(
    folder: str | os.PathLike[str], *, mpp: float | None = None, problems: list[str] | None = None
) -> list[NucleusField]:
    """Read a folder of images and GeoJSON exports. A nucleus without a class, or of QuPath's class
    ``Ignore*``, is ignored.

    Slide, patient, hospital and mpp of an image may stand in ``images.csv`` (see ``image_table``). Without, the slide
    of a field is the image's stem where the image is a slide or has several fields, and patient and hospital are
    known where that is a TCGA name.

    Args:
        folder: Folder with ``<stem>.png`` (or a slide) and ``<stem>.geojson`` (or ``.json``, ``.geojson.gz``).
        mpp: Micrometres per pixel; needed for images that record none, and overrides what slides and the table record.
        problems: Where given, an image that cannot be read is noted here and left out.

    Raises:
        AnnotationError: An image, its export or its micrometres per pixel is missing or cannot be read while
            ``problems`` is not given, or no image has an export.
    """
    root = Path(folder)
    exports = _exports(root)
    images = image_files(root)
    table = read_image_table(root, images)
    fields: list[NucleusField] = []
    for stem, export in exports.items():
        try:
            if stem not in images:
                raise AnnotationError(f"{export.name}: there is no image '{stem}' of any known kind beside it")
            fields.extend(_fields(images[stem], export, table.get(stem, ImageRow()), mpp))
        except AnnotationError as error:
            note_or_raise(error, problems)
    for stem in sorted(images.keys() - exports.keys()):
        message = f"{images[stem].name}: there is no export '{stem}.geojson' beside it; without nuclei, export it empty"
        note_or_raise(AnnotationError(message), problems)
    check_names(fields, root.name)
    return fields


def _exports(root: Path) -> dict[str, Path]:
    exports: dict[str, Path] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        name = path.name.removesuffix(".gz")
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 - of a name that is no path
        if suffix.lower() not in (".geojson", ".json") or name.startswith("."):
            continue
        if stem in exports:
            raise AnnotationError(
                f"{root.name}: '{exports[stem].name}' and '{path.name}' belong to one image; remove one"
            )
        exports[stem] = path
    if not exports:
        raise AnnotationError(
            f"{root.name}: expected images with a GeoJSON of the same name, but found no GeoJSON; in QuPath: File > "
            f"Export objects as GeoJSON. Check the path {root}"
        )
    return exports


def _fields(image: Path, export: Path, row: ImageRow, mpp: float | None) -> Iterator[NucleusField]:
    width, height, image_mpp = _size_and_mpp(image, row.mpp if mpp is None else mpp)
    shape_problems: list[ShapeProblem] = []
    objects = read_geojson(export, problems=shape_problems)
    noted = [str(problem) for problem in shape_problems if problem.kind == "dropped"]
    areas, nuclei = _sort(objects)
    boxes, classes, without = _nuclei(nuclei, export)
    if without:
        noted.append(f"{export.name}: objects without an outline left out: {without}")
    is_slide = image.suffix.lower() not in PLAIN_SUFFIXES
    slide = row.slide or (image.stem if is_slide or len(areas) > 1 else None)
    patient, hospital = tcga_origin(slide or "")
    ignored = np.array([class_name == IGNORED_CLASS for class_name in classes], dtype=np.bool_)
    if areas:
        beyond = len(boxes) - int(np.logical_or.reduce([_touches(boxes, area.geometry.bounds) for area in areas]).sum())
        if beyond:
            noted.append(f"{export.name}: nuclei outside of every annotation '{FIELD}' left out: {beyond}")
    places: list[tuple[str, Area]] = [(image.stem, (0, 0, width, height))]
    if areas:
        places = [
            (_name(image.stem, areas, index), _area_px(area, image, width, height)) for index, area in enumerate(areas)
        ]
    for index, (name, area_px) in enumerate(places):
        rows = np.flatnonzero(_touches(boxes, area_px)) if areas else np.arange(len(boxes))
        fitted = fit_boxes(
            boxes[rows],
            [classes[row] for row in rows],
            ignored[rows],
            name=name,
            area_px=area_px,
            cut_is_expected=bool(areas),
            min_visible=0.5 if areas else 0.0,
        )
        yield NucleusField(
            name=name,
            image=image,
            width_px=area_px[2] - area_px[0],
            height_px=area_px[3] - area_px[1],
            mpp=image_mpp,
            boxes_px=fitted.boxes_px,
            classes=fitted.classes,
            ignored=fitted.ignored,
            left_px=area_px[0],
            top_px=area_px[1],
            slide=slide,
            patient=row.patient or patient,
            hospital=row.hospital or hospital,
            problems=(*(noted if index == 0 else ()), *fitted.problems),
        )


def _size_and_mpp(image: Path, mpp: float | None) -> tuple[int, int, float]:
    if image.suffix.lower() in PLAIN_SUFFIXES:
        width, height = image_size_px(image)
        if mpp is None:
            raise AnnotationError(
                f"{image.name}: a plain image records no micrometres per pixel; give mpp=, for example 0.25 at 40x"
            )
        return width, height, mpp
    from tral_monai.slides import open_slide

    try:
        slide = open_slide(image, mpp=mpp)
    except SlideError as error:
        raise AnnotationError(str(error)) from error
    try:
        return *slide.dimensions, slide.mpp
    finally:
        slide.close()


def _sort(objects: list[Annotation]) -> tuple[list[Annotation], list[Annotation]]:
    """The annotations that bound fields, and the nuclei."""
    areas = [a for a in objects if FIELD in ((a.name or "").strip().lower(), (a.class_name or "").strip().lower())]
    areas = [a for a in areas if a.object_type == "annotation"]
    bounding = {id(area) for area in areas}
    nuclei = [a for a in objects if a.object_type in ("detection", "cell")]
    if not nuclei:
        nuclei = [a for a in objects if a.object_type == "annotation" and id(a) not in bounding]
    return areas, nuclei


def _nuclei(nuclei: list[Annotation], export: Path) -> tuple[npt.NDArray[np.float64], list[str], int]:
    """(n, 4) boxes in level-0 px, classes, and how many objects have no outline (points, lines, nothing)."""
    shapes = []
    for index, nucleus in enumerate(nuclei):
        inner = nucleus.extra.get("nucleusGeometry")
        try:
            shapes.append(geometry_from_geojson(inner) if inner else nucleus.geometry)
        except AnnotationError as error:
            cell = describe(index, nucleus.class_name, nucleus.name, nucleus.id)
            raise AnnotationError(f"{export.name}, nucleus of cell {cell}: {error}; delete the cell") from error
    if not shapes:
        return np.empty((0, 4)), [], 0
    outlined = np.isin(shapely.get_type_id(shapes), (3, 6))  # Polygon, MultiPolygon
    outlined &= ~shapely.is_empty(shapes)
    boxes = shapely.bounds(np.array(shapes, dtype=object)[outlined]).reshape(-1, 4)
    names = [nuclei[row].class_name for row in np.flatnonzero(outlined)]
    classes = [IGNORED_CLASS if name in (None, "", "Ignore*") else str(name) for name in names]
    return boxes, classes, int((~outlined).sum())


def _touches(boxes: npt.NDArray[np.float64], area: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = area
    return (boxes[:, 0] < right) & (boxes[:, 2] > left) & (boxes[:, 1] < bottom) & (boxes[:, 3] > top)


def _name(stem: str, areas: list[Annotation], index: int) -> str:
    """The stem for the only field of an image; else with the annotation's own name, or its number."""
    if len(areas) == 1:
        return stem
    own = (areas[index].name or "").strip()
    return f"{stem}_{own}" if own and own.lower() != FIELD else f"{stem}_{index + 1}"


def _area_px(area: Annotation, image: Path, width: int, height: int) -> Area:
    left, top, right, bottom = (
        (round(side) for side in area.geometry.bounds) if not area.geometry.is_empty else (0,) * 4
    )
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise AnnotationError(
            f"{image.name}: an annotation '{FIELD}' covers no pixel of the image of {width} x {height} px; draw it anew"
        )
    return left, top, right, bottom
