# SPDX-License-Identifier: Apache-2.0
"""Region shapes of a label file: rectangles with which an annotator says which part of a slide was looked at.

A shape of class or name ``Region`` (or ``field``, in any case, also QuPath's own class ``Region*``) is such a region,
even when nothing else is in it. In an export of a round's regions (:mod:`tral_monai.rounds.regions.region_geojson`)
every rectangle is there from the start and carries the metadata ``tral_monai: open``: it says nothing until objects
are drawn in it, or until its class is changed to ``Empty`` or its name to ``done`` (any name that ends so).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from tral_monai.annotations.model import Annotation

REGION_CLASS = "Region"
"""Class of the rectangles of an export."""
EMPTY_CLASS = "Empty"
"""Class that an annotator gives to an exported rectangle that was looked at and holds nothing."""
MARK, OPEN = "tral_monai", "open"
"""Key and value in the metadata of an exported rectangle."""

_NAMES = ("region", "region*", "field")
_GRID = 100
_AS_GOOD_AS_WHOLE = 0.98


@dataclass(frozen=True)
class RegionShape:
    """A Region shape of a label file.

    Attributes:
        outline: its area, level-0 pixels.
        looked_at: the annotator says that all of it was looked at; False for an exported rectangle as it was handed
            out, which counts only where something is drawn in it.
        shape: words that find it in its file.
    """

    outline: shapely.Polygon | shapely.MultiPolygon
    looked_at: bool
    shape: str


def looked_at(annotation: Annotation) -> bool | None:
    """Whether an annotation is a Region shape that was looked at; None where it is no Region shape."""
    names = [(text or "").strip().casefold() for text in (annotation.class_name, annotation.name)]
    metadata = annotation.properties.get("metadata")
    marked = isinstance(metadata, dict) and metadata.get(MARK) == OPEN
    if marked:
        return names[0] == EMPTY_CLASS.casefold() or names[1].endswith("done")
    return True if annotation.object_type == "annotation" and any(name in _NAMES for name in names) else None


def inner_rectangle(outline: shapely.Polygon | shapely.MultiPolygon) -> tuple[tuple[int, int, int, int], bool]:
    """The rectangle that a Region shape stands for: itself, or the largest one inside of it, to one percent.

    Args:
        outline: the shape, level-0 pixels.

    Returns:
        (x, y, width, height) in whole level-0 pixels, of no width where nothing fits in; and whether it is the shape
        itself.
    """
    x0, y0, x1, y1 = outline.bounds
    if outline.area >= _AS_GOOD_AS_WHOLE * (x1 - x0) * (y1 - y0):
        return (round(x0), round(y0), round(x1) - round(x0), round(y1) - round(y0)), True
    xs, ys = np.linspace(x0, x1, _GRID + 1), np.linspace(y0, y1, _GRID + 1)
    cells = shapely.box(xs[None, :-1], ys[:-1, None], xs[None, 1:], ys[1:, None])
    shapely.prepare(outline)
    top, bottom, left, right = _largest(shapely.covers(outline, cells), (x1 - x0) / (y1 - y0))
    x, y = int(np.ceil(xs[left])), int(np.ceil(ys[top]))
    return (x, y, max(int(xs[right]) - x, 0), max(int(ys[bottom]) - y, 0)), False


def _largest(inside: npt.NDArray[np.bool_], aspect: float) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the largest rectangle of True cells; ends are exclusive."""
    best, found = 0.0, (0, 0, 0, 0)
    heights = np.zeros(inside.shape[1], dtype=np.int64)
    for row in range(inside.shape[0]):
        heights = np.where(inside[row], heights + 1, 0)
        stack: list[tuple[int, int]] = []  # (first column, height), heights rising
        for column, height in enumerate([*heights.tolist(), 0]):
            first = column
            while stack and stack[-1][1] >= height:
                first, above = stack.pop()
                area = above * (column - first) * aspect
                if area > best:
                    best, found = area, (row + 1 - above, row + 1, first, column)
            stack.append((first, height))
    return found
