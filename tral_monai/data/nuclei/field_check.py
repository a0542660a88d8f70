# SPDX-License-Identifier: Apache-2.0
"""Which annotated fields can be used: their images open, their boxes lie inside. The rest is reported by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.data.nuclei.cut import outside_field
from tral_monai.errors import CohortError, SlideError, SlideReadError
from tral_monai.slides import open_slide

PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
"""Images that are decoded whole; every other file is opened as a slide."""

NOT_AN_IMAGE = (OSError, ValueError, SyntaxError, OverflowError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""


def check_fields(fields: Sequence[NucleusField], *, images: bool = True) -> tuple[list[NucleusField], list[str]]:
    """Leave out what cannot be used.

    Args:
        fields: The fields of a data set.
        images: Whether every field needs an image that opens. Headers are read and checksums compared, but nothing is
            decoded: a damage inside a JPEG shows only when it is read.

    Returns:
        The fields that can be used, without boxes outside of them; and the problems, one sentence each.

    Raises:
        CohortError: No field is left, or two have the same name.
    """
    problems = [
        problem if problem.startswith(field.name) else f"{field.name}: {problem}"
        for field in fields
        for problem in field.problems
    ]
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise CohortError(f"a field's name must occur once, but these occur more often: {twice[:5]}; rename them")
    if not fields:
        raise CohortError("there is no annotated field; check the data set's folder")
    kept, skipped = [], []
    sizes: dict[Path, tuple[int, int] | str] = {}
    for field in fields:
        if images:
            reason = _cannot_use(field, sizes)
            if reason is not None:
                skipped.append(f"skipped {field.name}: {reason}")
                continue
        outside = outside_field(field)
        if outside.any():
            problems.append(f"{field.name}: {int(outside.sum())} boxes outside the field or without area left out")
            field = dataclasses.replace(
                field,
                boxes_px=field.boxes_px[~outside],
                classes=tuple(name for name, off in zip(field.classes, outside, strict=True) if not off),
                ignored=field.ignored[~outside],
            )
        if not len(field):
            problems.append(f"{field.name}: no nucleus is annotated; the field is kept")
        kept.append(field)
    if not kept:
        raise CohortError(
            f"none of the {len(fields)} fields can be used; the first: {skipped[0]}. Check that the images are there "
            "and whole"
        )
    return kept, [*skipped, *problems]


def image_size(path: Path, mpp: float | None = None) -> tuple[int, int]:
    """Width and height of an image or slide in pixels, from its header; damage that shows without decoding raises.

    Args:
        path: The file.
        mpp: Micrometres per pixel, for slides that record none.

    Raises:
        SlideError: The file is missing or damaged.
    """
    if path.suffix.lower() not in PLAIN_SUFFIXES:
        with open_slide(path, mpp=mpp) as slide:
            return slide.dimensions
    if not path.is_file():
        raise SlideReadError(f"{path.name}: no such image ({path})")
    try:
        with Image.open(path) as image:
            size = image.size
            image.verify()
    except NOT_AN_IMAGE as error:
        raise SlideReadError(f"{path.name}: cannot be read as an image ({error}); copy it again") from error
    return size


def _cannot_use(field: NucleusField, sizes: dict[Path, tuple[int, int] | str]) -> str | None:
    """Why a field's image is no good, None where it is; ``sizes`` keeps what is known of an image already."""
    if field.image is None:
        return "it has no image"
    if field.image not in sizes:
        try:
            sizes[field.image] = image_size(field.image, field.mpp)
        except SlideError as error:
            sizes[field.image] = str(error)
    size = sizes[field.image]
    if isinstance(size, str):
        return size
    right, bottom = field.left_px + field.width_px, field.top_px + field.height_px
    if field.left_px < 0 or field.top_px < 0 or right > size[0] or bottom > size[1]:
        return (
            f"its annotated area ({field.left_px}, {field.top_px}) to ({right}, {bottom}) leaves {field.image.name}, "
            f"which has {size[0]} x {size[1]} pixels"
        )
    return None
