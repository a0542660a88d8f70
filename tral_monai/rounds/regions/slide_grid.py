# SPDX-License-Identifier: Apache-2.0
"""The regions of one slide that may be asked for: a grid over its tissue, within the areas that the lab allows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from scipy import ndimage

from tral_monai.annotations.files import read_annotations
from tral_monai.annotations.geometry import polygonal
from tral_monai.annotations.model import ShapeProblem
from tral_monai.errors import AnnotationError
from tral_monai.rounds.regions.region import Purpose
from tral_monai.slides import Slide, TissueMask

IntArray = npt.NDArray[np.int64]

MIN_TISSUE = 0.3
"""Least part of a region that is tissue."""
MIN_IN_AREA = 0.25
"""Least part of a region that lies in the areas of one purpose, where a slide has areas."""
MAX_IN_OTHER_AREA = 0.05
"""Largest part of it that lies in areas of another purpose: what is trained on must not be measured on."""
MAX_PER_SLIDE = 4000
"""A slide with more regions gives so many of them, drawn at random."""
FIELD_UM = 1000.0
"""Images whose longer side is below this are fields that somebody cut out of tissue: there is no glass to leave out."""
CELLS = 3
"""A region is looked at in CELLS x CELLS parts."""

COLUMNS = {
    "x_level0": "int64",
    "y_level0": "int64",
    "width_level0": "int64",
    "height_level0": "int64",
    "tissue": "float64",
    "cells": "int64",
    "mpp": "float64",
    "area": "str",
}
"""Columns of :func:`slide_regions`. Bit k of ``cells``: cell k (by rows) is mostly tissue. ``area``: the purpose that
the lab's areas give (``train``, ``val``), empty where the slide has none."""


def is_field(slide: Slide) -> bool:
    """Whether an image is a field cut out of tissue, and no slide."""
    return max(slide.dimensions) * slide.mpp < FIELD_UM


def region_boxes(dimensions: tuple[int, int], mpp: float, region_um: float, *, evenly: bool) -> IntArray:
    """A grid of regions inside a slide.

    Args:
        dimensions: (width, height) of the slide in level-0 pixels.
        mpp: micrometres per level-0 pixel.
        region_um: side of a region in micrometres.
        evenly: divide the image into equal parts of about that size, so that none of it is left over; else squares
            from the top left corner, on the grid on which tiles lie. A side shorter than a region is one region.

    Returns:
        (n, 4) int64: x, y, width and height in level-0 pixels, row by row; at least one.
    """
    step = region_um / mpp

    def axis(extent: int) -> tuple[IntArray, IntArray]:
        if evenly or extent < math.floor(step):
            count = max(1, min(round(extent / step), extent))
            edges = np.floor(np.arange(count + 1) * extent / count + 0.5).astype(np.int64)
            return edges[:-1], np.diff(edges)
        side = max(math.floor(step + 1e-9), 1)
        starts = np.floor(np.arange(int(extent / step) + 1) * step + 0.5).astype(np.int64)
        starts = starts[starts + side <= extent]
        return starts, np.full(len(starts), side, np.int64)

    (x, widths), (y, heights) = axis(dimensions[0]), axis(dimensions[1])
    columns, rows = np.tile(np.arange(len(x)), len(y)), np.repeat(np.arange(len(y)), len(x))
    return np.stack([x[columns], y[rows], widths[columns], heights[rows]], axis=1)


def slide_regions(
    slide: Slide, region_um: float, tissue: TissueMask | None, areas: Path | None, generator: np.random.Generator
) -> pd.DataFrame:
    """The regions of a slide with enough tissue, inside the lab's areas where it gave any.

    Args:
        slide: the open slide.
        region_um: side of a region in micrometres.
        tissue: its tissue; None counts everything as tissue.
        areas: annotation file of the areas that may be asked for: those named or classed ``val`` are held out,
            ``test`` are never asked for, all others are trained on.
        generator: draws regions where there are too many.

    Returns:
        A table with :data:`COLUMNS`, row by row of the slide.

    Raises:
        AnnotationError: the areas cannot be read, or hold no outline.
    """
    boxes = region_boxes(slide.dimensions, slide.mpp, region_um, evenly=is_field(slide))
    parts = np.ones(len(boxes)) if tissue is None else covered(tissue, boxes)
    kept = np.flatnonzero(parts >= MIN_TISSUE)  # before the areas, which cost more: most of a slide is glass
    purpose = np.full(len(boxes), "", dtype=object)
    if areas is not None:
        purpose[kept] = _purposes(boxes[kept], _areas(areas))
        kept = kept[purpose[kept] != ""]
    if len(kept) > MAX_PER_SLIDE:
        kept = np.sort(generator.permutation(kept)[:MAX_PER_SLIDE])
    boxes = boxes[kept]
    cells = np.full(len(boxes), 2**CELLS**2 - 1, np.int64)
    if tissue is not None:
        cells = sum(
            ((covered(tissue, cell_boxes(boxes, k)) >= 0.5).astype(np.int64) << k for k in range(CELLS**2)),
            np.zeros(len(boxes), np.int64),
        )
    table = pd.DataFrame(boxes, columns=list(COLUMNS)[:4])
    return table.assign(tissue=parts[kept], cells=cells, mpp=slide.mpp, area=purpose[kept]).astype(COLUMNS)


def area_purposes(file: Path) -> frozenset[Purpose]:
    """What the areas in an annotation file are for: to train on, held out, or both; found without opening the slide.

    Raises:
        AnnotationError: the areas cannot be read, or there is no outline.
    """
    found = _areas(file)
    purposes: tuple[Purpose, ...] = ("train", "val")
    return frozenset(purpose for purpose in purposes if not found[purpose].is_empty)


def cell_boxes(boxes: npt.NDArray[np.int64], cell: int) -> npt.NDArray[np.float64]:
    """Cell 0 to CELLS^2 - 1 of each region: (n, 4) x, y, width and height in level-0 pixels."""
    row, column = divmod(cell, CELLS)
    x, y, width, height = boxes.T.astype(np.float64)
    return np.stack([x + column * width / CELLS, y + row * height / CELLS, width / CELLS, height / CELLS], axis=1)


def covered(tissue: TissueMask, boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How much of each rectangle is tissue: (n,) 0 to 1, exact for the mask's pixels.

    Args:
        tissue: the mask.
        boxes: (n, 4) x, y, width and height in level-0 pixels.
    """
    x, y, width, height = np.asarray(boxes, np.float64).reshape(-1, 4).T / tissue.downsample_level0
    area = np.zeros((tissue.mask.shape[0] + 1, tissue.mask.shape[1] + 1))
    area[1:, 1:] = tissue.mask.cumsum(0).cumsum(1)

    def up_to(at_x: npt.NDArray[np.float64], at_y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # Between pixel corners the area is bilinear, so this is exact.
        return np.asarray(ndimage.map_coordinates(area, (at_y, at_x), order=1, mode="nearest"), np.float64)

    inside = up_to(x + width, y + height) - up_to(x, y + height) - up_to(x + width, y) + up_to(x, y)
    return np.clip(inside / (width * height), 0.0, 1.0)


def _areas(file: Path) -> dict[str, shapely.Geometry]:
    problems: list[ShapeProblem] = []
    outlines: dict[str, list[shapely.Geometry]] = {"train": [], "val": [], "test": []}
    for index, annotation in enumerate(read_annotations(file, problems=problems)):
        outline = polygonal(annotation, file=file.name, index=index, problems=problems)
        if outline is not None:
            words = {str(text).strip().lower() for text in (annotation.name, annotation.class_name)}
            outlines["test" if "test" in words else "val" if "val" in words else "train"].append(outline)
    if not any(outlines.values()):
        raise AnnotationError(f"{file.name}: holds no outline of an area; draw the areas that may be asked for")
    return {purpose: shapely.unary_union(of_purpose) for purpose, of_purpose in outlines.items()}


def _purposes(boxes: IntArray, areas: dict[str, shapely.Geometry]) -> npt.NDArray[np.object_]:
    """``train`` or ``val`` for each region by the areas that it lies in, empty for none."""
    x, y, width, height = boxes.T
    rectangles = shapely.box(x, y, x + width, y + height)
    parts = np.stack([_part_inside(rectangles, area) for area in areas.values()], axis=1)
    best = parts.argmax(axis=1)
    taken = (parts.max(axis=1) >= MIN_IN_AREA) & (parts.sum(axis=1) - parts.max(axis=1) <= MAX_IN_OTHER_AREA)
    names = np.array(["train", "val", ""], dtype=object)[best]
    return np.where(taken, names, "")


def _part_inside(rectangles: npt.NDArray[np.object_], area: shapely.Geometry) -> npt.NDArray[np.float64]:
    """How much of each rectangle lies in an area: (n,) 0 to 1; cut out only where the area's border crosses it."""
    shapely.prepare(area)
    parts = np.zeros(len(rectangles))
    touched = np.flatnonzero(shapely.intersects(area, rectangles))
    within = shapely.covers(area, rectangles[touched])
    parts[touched[within]] = 1.0
    crossed = touched[~within]
    shared = shapely.area(shapely.intersection(rectangles[crossed], area))
    parts[crossed] = shared / shapely.area(rectangles[crossed])
    return parts
