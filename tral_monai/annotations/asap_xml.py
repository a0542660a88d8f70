# SPDX-License-Identifier: Apache-2.0
"""ASAP XML, read: groups are classes, and holes and regions of several parts come back as `asap_xml_writer` puts them.

ASAP knows no holes and no regions of several parts. This is how they are written, one XML annotation per ring:

- an outline is an annotation of its class's group; each of its holes follows it at once, in the group
  ``<class> [hole]`` (``[hole]`` without a class). To make a mask with ASAP's own tools, give these groups the label 0
  and draw them last.
- all rings of one region carry the attribute ``Region="<number>"`` (``"<number>M"`` for several parts), which ASAP
  ignores. Where ASAP has saved the file and dropped it, a hole goes to the outline before it, or else to the outline of
  its class that contains it; a region of several parts then comes back as several regions.

ASAP gives every annotation its yellow ``#F4FA58`` at first: an annotation of that colour takes its group's.

QuPath's MONAI Label extension writes ASAP XML too, with QuPath's own names of shapes as types. Of an ellipse it writes
four points (top, right, bottom, left), which become the ellipse again; of a geometry it writes the points of all rings
one after the other, which become outlines and holes again.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import numpy.typing as npt
import shapely

from tral_monai.annotations.geometry import build_ring
from tral_monai.annotations.model import Annotation, Color, ShapeProblem, describe
from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError

HOLE = "[hole]"
"""End of the names of groups that hold the holes of a class."""
YELLOW = "#F4FA58"
"""ASAP's colour of an annotation that nobody gave one."""
AREAS = ("Polygon", "Rectangle", "Spline", "Ellipse")
"""ASAP's and QuPath's types of annotations with an area of one ring."""
_RINGS = ("Geometry", "Area")
"""QuPath's types of annotations of several rings."""
_KEPT = ("Rectangle", "Spline", "Dot", "PointSet", "Measurement")
"""Types of ASAP's that are kept, to be written again."""
_OTHERS = {
    "Dot": (1, shapely.Point),
    "PointSet": (1, shapely.MultiPoint),
    "Points": (1, shapely.MultiPoint),
    "Measurement": (2, shapely.LineString),
    "Line": (2, shapely.LineString),
    "Polyline": (2, shapely.LineString),
}


@dataclass
class _Shape:
    """One region while it is put together from its rings."""

    index: int
    kind: str
    class_name: str | None
    name: str | None
    color: Color | None
    region: str | None
    rings: list[list[shapely.LinearRing]] = field(default_factory=list)  # per part: outline, then holes
    geometry: Any = None
    asap: dict[str, Any] = field(default_factory=dict)


def parse_asap_xml(text: str, *, file: str = "text", problems: list[ShapeProblem] | None = None) -> list[Annotation]:
    """Annotations in the order of the text.

    Polygons, rectangles, splines, ellipses and geometries give polygons (a spline's control points are joined by
    straight lines), dots and point sets give points, measurements and lines give lines. ``properties["asap"]`` keeps
    ASAP's ``type`` where it is no plain polygon, and the class's parent group as ``parent``.

    Args:
        text: the XML text.
        file: file name for messages.
        problems: where given, a shape that cannot be used is noted here and left out.

    Raises:
        AnnotationError: malformed XML (with line and column), a document type or entity declaration (refused, never
            expanded), another kind of XML, or a shape that cannot be used while ``problems`` is not given.
    """
    root = _parse_safely(text, file)
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(f"{file}: expected ASAP XML with the root ASAP_Annotations, but found {root.tag}")
    groups = {group.get("Name", ""): group for group in root.iterfind("AnnotationGroups/Group")}
    shapes: list[_Shape] = []
    for index, element in enumerate(root.iterfind("Annotations/Annotation")):
        group = element.get("PartOfGroup", "None")
        try:
            _add(element, index, "" if group == "None" else group, groups, shapes)
        except AnnotationError as error:
            shape = describe(index, None if group == "None" else group, element.get("Name"))
            problem = ShapeProblem(file, shape, "dropped", str(error))
            if problems is None:
                raise AnnotationError(f"{file}, {shape}: {error}; correct or delete the shape") from error
            problems.append(problem)
    return [_annotation(shape) for shape in shapes]


def read_asap_xml(path: str | os.PathLike[str], *, problems: list[ShapeProblem] | None = None) -> list[Annotation]:
    """Read an ASAP XML file, plain or gzip; see :func:`parse_asap_xml`.

    Args:
        path: the file.
        problems: see :func:`parse_asap_xml`.

    Raises:
        AnnotationError: the file cannot be read, or see :func:`parse_asap_xml`.
    """
    return parse_asap_xml(read_text(path), file=Path(path).name, problems=problems)


def read_asap_roi(text: str, *, file: str = "text") -> tuple[int, int, int, int] | None:
    """The rectangle of a slide that a submission of QuPath's MONAI Label extension is about.

    All coordinates of such a file are relative to the rectangle's upper left corner.

    Args:
        text: the XML text.
        file: file name for messages.

    Returns:
        (x, y, width, height) in level-0 pixels, or None where the file is about the whole slide. An answer of MONAI
        Label's inference, which names its ``Model``, has a rectangle but whole-slide coordinates: None too.

    Raises:
        AnnotationError: see :func:`parse_asap_xml`; or the rectangle's numbers are none.
    """
    element = _parse_safely(text, file).find("Annotations")
    if element is None or element.get("Model") is not None:
        return None
    texts = [element.get(key) or "0" for key in ("X", "Y", "W", "H")]
    try:
        x, y, width, height = (round(float(value)) for value in texts)
    except (ValueError, OverflowError) as error:
        raise AnnotationError(
            f"{file}: expected whole numbers as X, Y, W and H of Annotations, but found {texts}"
        ) from (error)
    return (x, y, width, height) if width > 0 and height > 0 else None


def _parse_safely(text: str, file: str) -> ElementTree.Element:
    def refuse(*_: Any) -> None:
        raise AnnotationError(
            f"{file}: the XML declares a document type or entities; they are refused because they can read other files "
            "or fill the memory. ASAP writes none: remove the declaration"
        )

    content = text.encode()  # the text is decoded already: an encoding named in its declaration no longer holds
    try:
        guard = expat.ParserCreate("utf-8")
        guard.StartDoctypeDeclHandler = refuse
        guard.EntityDeclHandler = refuse
        guard.Parse(content, True)
        return ElementTree.fromstring(content, parser=ElementTree.XMLParser(encoding="utf-8"))
    except (expat.ExpatError, ElementTree.ParseError) as error:
        line, column = getattr(error, "position", None) or (getattr(error, "lineno", 0), getattr(error, "offset", 0))
        raise AnnotationError(
            f"{file}, line {line}, column {column + 1}: not valid XML ({expat.ErrorString(error.code)}); "
            "the file may have been cut off, save it again"
        ) from error


def _add(
    element: ElementTree.Element, index: int, group: str, groups: dict[str, ElementTree.Element], shapes: list[_Shape]
) -> None:
    kind = element.get("Type", "Polygon")
    points = _coordinates(element)
    region = element.get("Region")
    if kind in AREAS and (group == HOLE or group.endswith(f" {HOLE}")):
        class_name = group[: -len(HOLE)].rstrip() or None
        _outline_of(build_ring(points), class_name, region, shapes).append(build_ring(points))
        return
    shape = _Shape(index, kind, group or None, element.get("Name") or None, _color(element, group, groups), region)
    parent = groups[group].get("PartOfGroup", "None") if group in groups else "None"
    shape.asap = {**({"type": kind} if kind in _KEPT else {}), **({"parent": parent} if parent != "None" else {})}
    if kind in AREAS:
        ring = _ellipse(points) if kind == "Ellipse" and len(points) == 4 else build_ring(points)
        previous = shapes[-1] if shapes else None
        if region is not None and previous is not None and previous.region == region and previous.kind == kind:
            previous.rings.append([ring])
            return
        shape.rings.append([ring])
    elif kind in _RINGS:
        shape.geometry = _even_odd(points)
    elif kind in _OTHERS:
        least, build = _OTHERS[kind]
        if len(points) < least or not np.isfinite(points).all():
            raise AnnotationError(f"a {kind} needs {least} or more finite points, but has {points.tolist()}")
        shape.geometry = build(points)
    else:
        raise AnnotationError(f"expected a Type of {', '.join((*AREAS, *_RINGS, *_OTHERS))}, but found '{kind}'")
    shapes.append(shape)


def _ellipse(points: npt.NDArray[np.float64]) -> shapely.LinearRing:
    """An ellipse of 64 points from its top, right, bottom and left."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    centre, radius = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2)
    return build_ring(np.column_stack((centre[0] + radius[0] * np.cos(angle), centre[1] + radius[1] * np.sin(angle))))


def _even_odd(points: npt.NDArray[np.float64]) -> Any:
    """The area of rings whose points follow each other: a ring ends where its first point comes back.

    What lies in an odd number of rings is inside.
    """
    rings, start = [], 0
    for end in range(1, len(points)):
        if end - start >= 3 and np.array_equal(points[end], points[start]):
            rings.append(points[start : end + 1])
            start = end + 1
    if len(points) - start >= 3:  # not closed
        rings.append(points[start:])
    if len(rings) <= 1:
        return shapely.Polygon(build_ring(rings[0] if rings else points))
    areas = [shapely.make_valid(shapely.Polygon(build_ring(ring))) for ring in rings]
    area = areas[0]
    for other in areas[1:]:
        area = area.symmetric_difference(other)
    return area


def _coordinates(element: ElementTree.Element) -> npt.NDArray[np.float64]:
    rows = []
    for position, coordinate in enumerate(element.iterfind("Coordinates/Coordinate")):
        try:
            order = int(coordinate.get("Order", position))
            rows.append((order, position, float(coordinate.get("X", "")), float(coordinate.get("Y", ""))))
        except ValueError as error:
            raise AnnotationError(f"point {position + 1} has no numbers Order, X and Y: {coordinate.attrib}") from error
    return np.array([row[2:] for row in sorted(rows, key=lambda row: row[:2])], dtype=np.float64).reshape(-1, 2)


def _outline_of(
    hole: shapely.LinearRing, class_name: str | None, region: str | None, shapes: list[_Shape]
) -> list[shapely.LinearRing]:
    """The rings of the part that a hole belongs to: the one before it, or else the one around it."""
    own = [shape for shape in shapes if shape.rings and shape.class_name == class_name]
    if own and own[-1] is shapes[-1]:
        last = own[-1].rings[-1]
        if (region is not None and own[-1].region == region) or _contains(last, hole):
            return last
    for shape in reversed(own):
        for part in reversed(shape.rings):
            if _contains(part, hole):
                return part
    raise AnnotationError(f"a hole lies in no outline of the class {class_name or 'None'}")


def _contains(part: list[shapely.LinearRing], hole: shapely.LinearRing) -> bool:
    outline = shapely.Polygon(part[0])
    return outline.is_valid and outline.covers(hole)


def _color(element: ElementTree.Element, group: str, groups: dict[str, ElementTree.Element]) -> Color | None:
    own = element.get("Color", YELLOW)
    if own.upper() == YELLOW and group in groups:
        own = groups[group].get("Color", YELLOW)
    if own.upper() == YELLOW:
        return None
    digits = own.lstrip("#")
    try:
        red, green, blue = bytes.fromhex(digits[-6:])  # #AARRGGBB where Qt wrote the alpha too
    except ValueError as error:
        raise AnnotationError(f"expected a Color like #64FE2E, but found '{own}'") from error
    return red, green, blue


def _annotation(shape: _Shape) -> Annotation:
    geometry = shape.geometry
    if shape.rings:
        polygons = [shapely.Polygon(part[0], part[1:]) for part in shape.rings]
        several = len(polygons) > 1 or (shape.region or "").endswith("M")
        geometry = shapely.MultiPolygon(polygons) if several else polygons[0]
    properties = {"asap": shape.asap} if shape.asap else {}
    return Annotation(geometry, shape.class_name, shape.name, shape.color, properties=properties)
