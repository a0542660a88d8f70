# SPDX-License-Identifier: Apache-2.0
"""Boxes as they stand in a file to boxes inside the annotated area, with a sentence for whatever was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED_CLASS = "ignored"
"""Class of a nucleus that nobody could name; its ``ignored`` flag is set."""


@dataclass(frozen=True)
class FittedBoxes:
    """Nuclei of one annotated area.

    Attributes:
        boxes_px: (n, 4) xmin, ymin, xmax, ymax in pixels of the area, float32, inside it and of some area.
        classes: (n,) class names.
        ignored: (n,) bool.
        problems: What was left out or clipped, one sentence each.
    """

    boxes_px: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    ignored: npt.NDArray[np.bool_]
    problems: tuple[str, ...]


def fit_boxes(
    boxes_px: npt.ArrayLike,
    classes: Sequence[str],
    ignored: npt.ArrayLike,
    *,
    name: str,
    area_px: tuple[float, float, float, float],
    cut_is_expected: bool = False,
    min_visible: float = 0.0,
) -> FittedBoxes:
    """Leave out boxes that cannot be used, clip the others to the annotated area and move its corner to the origin.

    Args:
        boxes_px: (n, 4) xmin, ymin, xmax, ymax in pixels of the image.
        classes: (n,) class names.
        ignored: (n,) bool.
        name: Name of the field, for the sentences.
        area_px: The annotated area in pixels of the image: xmin, ymin, xmax, ymax.
        cut_is_expected: Nuclei on the area's edge were drawn whole, so that clipping them is no problem to report.
        min_visible: A nucleus of which less than this share is inside the area is ignored: too little is seen of it.
    """
    boxes = np.asarray(boxes_px, dtype=np.float64).reshape(-1, 4)
    flags = np.array(ignored, dtype=np.bool_).reshape(-1)
    problems: list[str] = []
    finite = np.isfinite(boxes).all(axis=1)
    _note(problems, name, int((~finite).sum()), "with NaN or infinity", "left out")
    size = np.where(finite[:, None], boxes[:, 2:] - boxes[:, :2], 0.0)
    some_area = (size > 0).all(axis=1)
    _note(problems, name, int((finite & ~some_area).sum()), "of no area", "left out")
    left, top, right, bottom = area_px
    clipped = np.where(finite[:, None], boxes, 0.0)
    clipped = np.clip(clipped, [left, top, left, top], [right, bottom, right, bottom])
    seen = clipped[:, 2:] - clipped[:, :2]
    inside = (seen > 0).all(axis=1)
    keep = some_area & inside
    cut = keep & (clipped != boxes).any(axis=1)
    _note(problems, name, int((some_area & ~inside).sum()), "outside the annotated area", "left out")
    if not cut_is_expected:
        _note(problems, name, int(cut.sum()), "partly outside the annotated area", "clipped")
    visible = seen.prod(axis=1) / np.where(some_area, size.prod(axis=1), 1.0)
    flags |= keep & (visible < min_visible)
    moved = (clipped - [left, top, left, top]).astype(np.float32)[keep]
    # A sliver far from the origin of a slide may lose its area in float32.
    solid = (moved[:, 2:] > moved[:, :2]).all(axis=1)
    rows = np.flatnonzero(keep)[solid]
    return FittedBoxes(moved[solid], tuple(str(classes[row]) for row in rows), flags[rows], tuple(problems))


def unnamed_class_problem(name: str, counts: dict[str, int], expected: Sequence[str]) -> tuple[str, ...]:
    """The sentence on classes that the data set's class map does not hold; empty where there are none.

    Args:
        name: Name of the field.
        counts: Nuclei of each such class.
        expected: The classes that the map holds.
    """
    if not counts:
        return ()
    found = ", ".join(f"'{class_name}' ({count} nuclei)" for class_name, count in sorted(counts.items()))
    return (f"{name}: class {found} is not one of {', '.join(expected)}; these nuclei are ignored",)


def _note(problems: list[str], name: str, count: int, what: str, done: str) -> None:
    if count:
        problems.append(f"{name}: {count} box{'es' if count > 1 else ''} {what} {done}")
