# SPDX-License-Identifier: Apache-2.0
"""ASAP XML, written: geometry, classes, names and colours come back exactly; see `asap_xml` for holes and parts.

Ids, properties and object types have no place in ASAP XML: use GeoJSON to keep them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import shapely

from tral_monai.annotations.asap_xml import AREAS, HOLE, YELLOW
from tral_monai.annotations.model import Annotation, describe
from tral_monai.annotations.text_file import write_text
from tral_monai.errors import AnnotationError

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_asap_xml(path: str | os.PathLike[str], annotations: Iterable[Annotation]) -> None:
    """Write annotations for ASAP; geometry, classes, names and colours come back exactly.

    Args:
        path: file to write, replaced only once it is whole; packed if it ends in ``.gz``.
        annotations: what to write, in this order.

    Raises:
        AnnotationError: a geometry or class name that ASAP XML cannot hold.
        OutputError: the file cannot be written.
    """
    groups: dict[str, tuple[str, str]] = {}  # name -> (parent, colour)
    with write_text(path) as stream:
        stream.write('<?xml version="1.0"?>\n<ASAP_Annotations>\n\t<Annotations>\n')
        for index, annotation in enumerate(annotations):
            for line in _elements(index, annotation, groups, Path(path).name):
                stream.write(line)
        stream.write("\t</Annotations>\n\t<AnnotationGroups>\n")
        for name, (parent, color) in groups.items():
            attributes = f"Name={_quote(name)} PartOfGroup={_quote(parent)} Color={_quote(color)}"
            stream.write(f"\t\t<Group {attributes}>\n\t\t\t<Attributes />\n\t\t</Group>\n")
        stream.write("\t</AnnotationGroups>\n</ASAP_Annotations>\n")


def _elements(index: int, annotation: Annotation, groups: dict[str, tuple[str, str]], file: str) -> Iterator[str]:
    geometry, class_name = annotation.geometry, annotation.class_name
    shape = describe(index, class_name, annotation.name, annotation.id)
    if class_name in ("", "None", HOLE) or (class_name or "").endswith(f" {HOLE}"):
        raise AnnotationError(f"{file}, {shape}: ASAP XML cannot hold the class name '{class_name}'; rename the class")
    if geometry.has_z:
        raise AnnotationError(f"{file}, {shape}: ASAP XML holds no third coordinate; write GeoJSON")
    for text in (class_name, annotation.name):
        if text is not None and _NOT_XML.search(text):
            raise AnnotationError(
                f"{file}, {shape}: XML cannot hold the character {_NOT_XML.findall(text)[0]!r}; rename"
            )
    asap = annotation.properties.get("asap", {})
    color = YELLOW if annotation.color is None else "#{:02X}{:02X}{:02X}".format(*annotation.color)
    group = class_name or "None"
    if class_name is not None:
        groups.setdefault(class_name, (asap.get("parent", "None"), color))
        if "parent" in asap:
            groups.setdefault(asap["parent"], ("None", color))
    common = (annotation.name or "", color)
    if isinstance(geometry, (shapely.Polygon, shapely.MultiPolygon)) and not geometry.is_empty:
        several = isinstance(geometry, shapely.MultiPolygon)
        parts = list(geometry.geoms) if isinstance(geometry, shapely.MultiPolygon) else [geometry]
        plain = not several and not parts[0].interiors
        region = None if plain else f"{index}{'M' if several else ''}"
        kind = asap.get("type", "Polygon")
        for part in parts:
            yield _element(kind if kind in AREAS else "Polygon", group, common, _open(part.exterior), region)
            for hole in part.interiors:
                hole_group = f"{class_name} {HOLE}" if class_name is not None else HOLE
                groups.setdefault(hole_group, (group, "#FFFFFF"))
                yield _element("Polygon", hole_group, common, _open(hole), region)
    elif isinstance(geometry, shapely.Point) and not geometry.is_empty:
        yield _element("Dot", group, common, geometry.coords, None)
    elif isinstance(geometry, shapely.MultiPoint) and not geometry.is_empty:
        points = [point.coords[0] for point in geometry.geoms]
        yield _element("PointSet", group, common, points, None)
    elif isinstance(geometry, shapely.LineString) and not geometry.is_empty:
        yield _element("Measurement", group, common, geometry.coords, None)
    else:
        raise AnnotationError(
            f"{file}, {shape}: ASAP XML cannot hold {'an empty' if geometry.is_empty else 'a'} {geometry.geom_type}; "
            "write GeoJSON"
        )


def _open(ring: shapely.LinearRing) -> list[tuple[float, ...]]:
    points = list(ring.coords)
    # A ring whose first point stands twice at the end would lose one of them when it is closed again.
    return points if points[-2] == points[0] else points[:-1]


def _element(kind: str, group: str, common: tuple[str, str], points: Any, region: str | None) -> str:
    name, color = common
    mark = f' Region="{region}"' if region is not None else ""
    head = f"Name={_quote(name)} Type={_quote(kind)} PartOfGroup={_quote(group)} Color={_quote(color)}{mark}"
    rows = "".join(
        f'\t\t\t\t<Coordinate Order="{order}" X="{float(x)!r}" Y="{float(y)!r}" />\n'
        for order, (x, y) in enumerate(points)
    )
    return f"\t\t<Annotation {head}>\n\t\t\t<Coordinates>\n{rows}\t\t\t</Coordinates>\n\t\t</Annotation>\n"


def _quote(text: str) -> str:
    # Without these a parser turns them into spaces.
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
