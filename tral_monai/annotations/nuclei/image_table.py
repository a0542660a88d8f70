# SPDX-License-Identifier: Apache-2.0
"""``images.csv``: an optional table that says of each image of a folder whose it is, and its micrometres per pixel."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError

FILE_NAME = "images.csv"
_COLUMNS = ("image", "slide", "patient", "hospital", "mpp")


@dataclass(frozen=True)
class ImageRow:
    """What the table says of one image; None where its cell is empty or its column is missing.

    Attributes:
        slide: Name of the slide.
        patient: Name of the patient.
        hospital: Name of the hospital.
        mpp: Micrometres per pixel.
    """

    slide: str | None = None
    patient: str | None = None
    hospital: str | None = None
    mpp: float | None = None


def read_image_table(folder: Path, stems: Iterable[str]) -> dict[str, ImageRow]:
    """Read ``images.csv`` of a folder: ``image`` (file name, or its stem) and any of slide, patient, hospital, mpp.

    Args:
        folder: Folder of the images.
        stems: The stems of its images.

    Returns:
        Row by stem; empty where the folder has no such table.

    Raises:
        AnnotationError: A column is unknown or ``image`` is missing, an image is not there or stands twice, or an mpp
            is no positive number.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return {}
    table = csv.DictReader(io.StringIO(read_text(file), newline=""))
    names = [name.strip().lower() for name in table.fieldnames or ()]
    table.fieldnames = names
    unknown = [name for name in names if name not in _COLUMNS]
    if "image" not in names or unknown:
        raise AnnotationError(f"{FILE_NAME}: expected the column image and any of {_COLUMNS[1:]}, but found {names}")
    known = set(stems)
    rows: dict[str, ImageRow] = {}
    for cells in table:
        text = {name: (cells.get(name) or "").strip() for name in _COLUMNS}
        stem = text["image"] if text["image"] in known else Path(text["image"]).stem
        if stem not in known:
            raise AnnotationError(f"{FILE_NAME}: there is no image '{text['image']}' in {folder.name}; correct the row")
        if stem in rows:
            raise AnnotationError(f"{FILE_NAME}: the image '{stem}' has two rows; remove one of them")
        rows[stem] = ImageRow(
            slide=text["slide"] or None,
            patient=text["patient"] or None,
            hospital=text["hospital"] or None,
            mpp=_mpp(text["mpp"], stem),
        )
    return rows


def _mpp(text: str, stem: str) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = math.nan
    if not (math.isfinite(mpp) and mpp > 0):
        raise AnnotationError(
            f"{FILE_NAME}: mpp of '{stem}' must be a positive number of micrometres per pixel, but is '{text}'"
        )
    return mpp
