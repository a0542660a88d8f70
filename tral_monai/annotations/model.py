# SPDX-License-Identifier: Apache-2.0
"""The one in-memory form of an annotation, whatever file it came from, and the note of a shape with a defect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from shapely.geometry.base import BaseGeometry

Color = tuple[int, int, int]
"""Red, green and blue, each 0 to 255."""


@dataclass(frozen=True)
class Annotation:
    """One annotated region or nucleus.

    Attributes:
        geometry: shapely geometry in level-0 px (x to the right, y downwards), as it stands in the file: it may be
            invalid, lie partly outside of the slide, or be a point or a line. ``geometry.polygonal`` gives its area.
        class_name: class given by the annotator, None where unclassified. A QuPath derived class is joined with
            ``": "``, as QuPath shows it.
        name: name of the object, None without one; a cohort's ``part`` refers to it.
        color: colour of the class, or of the object itself where it is unclassified.
        id: the object's id (a UUID in QuPath).
        object_type: QuPath's ``annotation``, ``detection``, ``cell`` or ``tile``.
        properties: everything else that the file's properties hold (lock, measurements, metadata, ...), untouched.
        extra: members of a GeoJSON feature that the standard does not know, such as a cell's ``nucleusGeometry``;
            under ``"geometry"`` those of its geometry, such as QuPath's ``plane``.
    """

    geometry: BaseGeometry
    class_name: str | None = None
    name: str | None = None
    color: Color | None = None
    id: str | None = None
    object_type: str = "annotation"
    properties: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShapeProblem:
    """A shape that was repaired or left out.

    Attributes:
        file: file name, without folder.
        shape: which shape: its position in the file, with class, name and id where it has them.
        kind: ``closed`` (the last point of a ring was missing), ``repaired`` (it crossed itself) or ``dropped``.
        detail: what was wrong.
    """

    file: str
    shape: str
    kind: Literal["closed", "repaired", "dropped"]
    detail: str

    def __str__(self) -> str:
        return f"{self.file}, {self.shape}: {self.detail} ({self.kind})"


def describe(index: int, class_name: str | None = None, name: str | None = None, id: str | None = None) -> str:
    """Words that find one shape in its file, such as ``shape 3 (class 'Tumor', name 'train')``.

    Args:
        index: position in the file, from 0.
        class_name: its class.
        name: its name.
        id: its id.
    """
    known = [f"{key} '{value}'" for key, value in (("class", class_name), ("name", name), ("id", id)) if value]
    return f"shape {index + 1}" + (f" ({', '.join(known)})" if known else "")
