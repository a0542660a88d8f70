# SPDX-License-Identifier: Apache-2.0
"""A label file as it stands: its slide, the rectangle that it is about, its objects and Region shapes, at level 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import shapely
from shapely.affinity import translate

from tral_monai.annotations.asap_xml import read_asap_roi
from tral_monai.annotations.files import parse_annotations
from tral_monai.annotations.geometry import geometry_from_geojson, polygonal
from tral_monai.annotations.model import Annotation, ShapeProblem, describe
from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError
from tral_monai.rounds.regions.catalog import SlideCatalog
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.region_shapes import RegionShape, looked_at

LABEL_SUFFIXES = (".xml", ".geojson", ".json")
"""Suffixes of label files; each may be followed by ``.gz``."""
_MOST_PROBLEMS = 50

Area: TypeAlias = "shapely.Polygon | shapely.MultiPolygon"


@dataclass(frozen=True)
class LabelObject:
    """One object of a label file.

    Attributes:
        class_name: class as the annotator wrote it, None without one.
        object_type: QuPath's ``annotation``, ``detection``, ``cell`` or ``tile``.
        area: its area on the slide, level-0 pixels; of a cell, its nucleus. None for a point, a line, or an object that
            is not on the slide.
        why_none: why it has no area.
    """

    class_name: str | None
    object_type: str
    area: Area | None
    why_none: str = ""


@dataclass(frozen=True)
class LabelFile:
    """What a label file says, in level-0 pixels of its slide.

    Attributes:
        slide: file name of the slide.
        mpp: micrometres per level-0 pixel of the slide.
        roi: the rectangle that a submission of a part of the slide is about; None where it is about the whole slide.
        objects: the objects, without Region shapes.
        region_shapes: the Region shapes.
        problems: what was repaired or left out, one sentence each.
    """

    slide: str
    mpp: float
    roi: Region | None
    objects: tuple[LabelObject, ...]
    region_shapes: tuple[RegionShape, ...]
    problems: tuple[str, ...] = field(default=())


def label_stem(name: str) -> str | None:
    """What a label file is called after: its name without suffixes; None where it is no label file by its suffix."""
    bare = name[:-3] if name.lower().endswith(".gz") else name
    path = Path(bare)
    return path.stem if path.suffix.lower() in LABEL_SUFFIXES and path.stem and not name.startswith(".") else None


def read_label_file(path: Path, catalog: SlideCatalog, image: str, *, name: str = "") -> LabelFile:
    """Read a label file of a slide or of a region of it.

    The region of a submission from QuPath stands in the file (``X, Y, W, H``); elsewhere it is known by the image's
    name, ``<slide>-patch-<x>_<y>_<w>_<h>``. Coordinates of both are relative to the region.

    Args:
        path: GeoJSON or ASAP XML; the content decides which.
        catalog: the slides.
        image: what the client calls the image.
        name: what messages call the file; its own name where not given.

    Raises:
        UnknownItemError: there is no such slide.
        SlideError: the slide cannot be opened, or has no mpp.
        AnnotationError: the file is malformed, declares entities, or its region lies outside of the slide.
    """
    named = catalog.patch_origin(image)
    entry = catalog.find(named.slide if named is not None else image)
    name = name or path.name
    text = read_text(path, name=name)
    written = read_asap_roi(text, file=name) if text.lstrip()[:1] == "<" else None
    shape_problems: list[ShapeProblem] = []
    annotations = parse_annotations(text, file=name, problems=shape_problems)
    problems: list[str] = []
    origin = written if written is not None else named.bbox_level0 if named is not None else None
    if written is not None and named is not None and written != named.bbox_level0:
        problems.append(
            f"the file says that it is about {list(written)}, but the image is called '{image}'; the file counts"
        )
    with catalog.open(entry.name) as slide:
        dimensions, mpp = slide.dimensions, slide.mpp
    whole = shapely.box(0, 0, *dimensions)
    roi = None
    if origin is not None:
        roi = clip_to_slide(Region(entry.name, *origin), dimensions)
        if roi is None:
            raise AnnotationError(
                f"{name}: its region {list(origin)} lies outside of the slide {entry.name} of "
                f"{dimensions[0]} x {dimensions[1]} pixels; submit it for the slide that it was drawn on"
            )
    offset = origin[:2] if origin is not None else (0, 0)
    objects: list[LabelObject] = []
    shapes: list[RegionShape] = []
    for index, annotation in enumerate(annotations):
        seen = looked_at(annotation)
        found = _object(annotation, index, offset, whole, name, shape_problems)
        if seen is None:
            objects.append(found)
        elif found.area is not None:
            shapes.append(RegionShape(found.area, seen, describe(index, annotation.class_name, annotation.name)))
    noted = [str(problem) for problem in shape_problems if problem.kind != "closed"]
    problems += noted[:_MOST_PROBLEMS]
    if len(noted) > _MOST_PROBLEMS:
        problems.append(f"and {len(noted) - _MOST_PROBLEMS} more shapes with a defect")
    return LabelFile(entry.name, mpp, roi, tuple(objects), tuple(shapes), tuple(problems))


def clip_to_slide(region: Region, dimensions: Sequence[int]) -> Region | None:
    """The part of a region on its slide, or None where there is none.

    Args:
        region: the region.
        dimensions: (width, height) of the slide, level-0 pixels.
    """
    x, y, width, height = region.bbox_level0
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, dimensions[0]), min(y + height, dimensions[1])
    return Region(region.slide, x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def _object(
    annotation: Annotation,
    index: int,
    offset: Sequence[int],
    whole: shapely.Polygon,
    file: str,
    problems: list[ShapeProblem],
) -> LabelObject:
    name, kind = annotation.class_name, annotation.object_type
    shape = describe(index, name, annotation.name, annotation.id)
    nucleus = annotation.extra.get("nucleusGeometry")
    if nucleus:
        try:
            annotation = dataclasses.replace(annotation, geometry=geometry_from_geojson(nucleus))
        except AnnotationError as error:
            problems.append(ShapeProblem(file, f"nucleus of {shape}", "dropped", str(error)))
            return LabelObject(name, kind, None, "its nucleus has no usable outline")
    area = polygonal(annotation, file=file, index=index, problems=problems)
    if area is None:
        return LabelObject(name, kind, None, "no area (a point, a line or nothing)")
    if any(offset):
        area = translate(area, *offset)
    x0, y0, x1, y1 = area.bounds
    if x0 >= 0 and y0 >= 0 and x1 <= whole.bounds[2] and y1 <= whole.bounds[3]:
        return LabelObject(name, kind, area)
    clipped = polygons_of(area.intersection(whole))
    if clipped is None:
        problems.append(ShapeProblem(file, shape, "dropped", "it lies outside of the slide"))
        return LabelObject(name, kind, None, "outside of the slide")
    problems.append(ShapeProblem(file, shape, "repaired", "it reached beyond the slide and was clipped"))
    return LabelObject(name, kind, clipped)


def polygons_of(geometry: shapely.Geometry) -> Area | None:
    """The polygons of any geometry, such as of an intersection; None where it has no area."""
    parts = [part for part in shapely.get_parts(geometry) if isinstance(part, (shapely.Polygon, shapely.MultiPolygon))]
    parts = [part for one in parts for part in shapely.get_parts(one) if part.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
