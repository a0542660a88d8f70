# SPDX-License-Identifier: Apache-2.0
"""Annotated fields to fields of view (FOVs): disjoint tiles of nearly one size, each nucleus in exactly one of them.

The rules:

- A field is divided into ``round(side / fov_px)`` columns and rows, at least one, of equal width and height (to a
  pixel of the image). So no sliver is left over at the far edge; a tile measures 0.75 to 1.5 times ``fov_px``.
- A nucleus belongs to the tile that holds the centre of its box. There its box is clipped to the tile.
- In every other tile that it reaches into, the part is listed as ``ignored``: a detector may find it or not.
- A box with a side under ``min_box_px`` after this, and a nucleus that nobody could name, is ``ignored`` too.
- A part under one pixel wide or high is not listed at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS
from tral_monai.data.nuclei.open_set import IGNORED
from tral_monai.errors import CohortError, ConfigError

SAME_MPP = 0.01
"""Fields whose mpp differ by at most this part count as one resolution."""


def cut_fields(
    fields: Iterable[NucleusField], *, fov_mpp: float, fov_px: int | None = 256, min_box_px: float = 4.0
) -> pd.DataFrame:
    """The FOVs of many fields, in their order, row by row; ids count from 0.

    Args:
        fields: Annotated fields.
        fov_mpp: Micrometres per pixel at which a detector will see the FOVs.
        fov_px: Wanted side of a FOV in pixels at ``fov_mpp``. None keeps every field whole, as the published
            evaluations on NuCLS do.
        min_box_px: Least width and height in pixels at ``fov_mpp`` of a box that counts.

    Returns:
        A table with :data:`FOV_COLUMNS`; a FOV without nuclei has a row too.

    Raises:
        ConfigError: A setting is out of range.
    """
    check_cut_settings(fov_mpp=fov_mpp, fov_px=fov_px, min_box_px=min_box_px)
    rows = [row for field in fields for row in _cut_field(field, fov_mpp, fov_px, min_box_px)]
    table = pd.DataFrame(rows, columns=list(FOV_COLUMNS))
    table["id"] = np.arange(len(table), dtype=np.int64)
    return table


def check_cut_settings(*, fov_mpp: float, fov_px: int | None, min_box_px: float) -> None:
    """Raise ConfigError unless fields can be cut like this."""
    if not (np.isfinite(fov_mpp) and fov_mpp > 0):
        raise ConfigError(f"fov_mpp must be micrometres per pixel above 0, such as 0.25, but is {fov_mpp!r}")
    if fov_px is not None and fov_px < 16:
        raise ConfigError(f"fov_px must be at least 16 pixels, or None for whole fields, but is {fov_px!r}")
    if not (np.isfinite(min_box_px) and min_box_px >= 1):
        raise ConfigError(f"min_box_px must be at least 1 pixel, but is {min_box_px!r}")


def common_mpp(fields: Iterable[NucleusField]) -> float:
    """The resolution that all fields share: the median, where all lie within 1 % of it.

    Raises:
        CohortError: There is no field.
        ConfigError: The fields differ.
    """
    values = np.array([field.mpp for field in fields], dtype=np.float64)
    if not len(values):
        raise CohortError("there is no annotated field; check the data set's folder")
    middle = float(np.median(values))
    if (np.abs(values / middle - 1) > SAME_MPP).any():
        raise ConfigError(
            f"the fields have {values.min():g} to {values.max():g} micrometres per pixel; say at which resolution the "
            "detector shall see them with fov_mpp"
        )
    return middle


def outside_field(field: NucleusField) -> npt.NDArray[np.bool_]:
    """(n,) Which boxes have no area inside the field's annotated area: these cannot belong to any FOV."""
    x0, y0, x1, y1 = _clip(field.boxes_px.astype(np.float64), 0, 0, field.width_px, field.height_px).T
    return (x1 <= x0) | (y1 <= y0)


def tile_edges(side_px: int, tile_px: float | None) -> npt.NDArray[np.int64]:
    """Edges of ``round(side / tile)`` parts of nearly equal size, at least one: from 0 to ``side_px``.

    Args:
        side_px: Width or height in pixels of the image.
        tile_px: Wanted size in the same pixels; None is one part.
    """
    parts = 1 if tile_px is None else max(int(np.floor(side_px / tile_px + 0.5)), 1)
    return np.rint(np.linspace(0, side_px, parts + 1)).astype(np.int64)


def _cut_field(field: NucleusField, fov_mpp: float, fov_px: int | None, min_box_px: float) -> Iterable[dict[str, Any]]:
    if field.width_px < 1 or field.height_px < 1:
        raise CohortError(f"{field.name}: measures {field.width_px} x {field.height_px} pixels; nothing can be cut")
    tile_px = None if fov_px is None else fov_px * fov_mpp / field.mpp
    columns, rows = tile_edges(field.width_px, tile_px), tile_edges(field.height_px, tile_px)
    inside = ~outside_field(field)
    boxes = _clip(field.boxes_px[inside].astype(np.float64), 0, 0, field.width_px, field.height_px)
    names = np.array(field.classes, dtype=object)[inside]
    names[field.ignored[inside]] = IGNORED
    # A clipped box has its centre inside the field, so exactly one column and one row hold it.
    column_of = np.searchsorted(columns, (boxes[:, 0] + boxes[:, 2]) / 2, side="right") - 1
    row_of = np.searchsorted(rows, (boxes[:, 1] + boxes[:, 3]) / 2, side="right") - 1

    for row, (top, bottom) in enumerate(itertools.pairwise(rows)):
        for column, (left, right) in enumerate(itertools.pairwise(columns)):
            width, height = int(right - left), int(bottom - top)
            # As fov_table.fov_size_px has it: the factor is that of the whole pixels that the picture will have.
            scale_x = max(float(np.rint(width * field.mpp / fov_mpp)), 1.0) / width
            scale_y = max(float(np.rint(height * field.mpp / fov_mpp)), 1.0) / height
            parts = _clip(boxes, left, top, right, bottom) - (left, top, left, top)
            parts = (parts * (scale_x, scale_y, scale_x, scale_y)).astype(np.float32)
            sides = np.minimum(parts[:, 2] - parts[:, 0], parts[:, 3] - parts[:, 1])
            owned = (column_of == column) & (row_of == row)
            answers = np.where(owned & (sides >= min_box_px), names, IGNORED)
            listed = sides >= 1
            yield {
                "id": 0,
                "field": field.name,
                "slide": field.slide or "",
                "patient": field.patient or "",
                "hospital": field.hospital or "",
                "image": "" if field.image is None else str(field.image),
                "left_px": field.left_px + int(left),
                "top_px": field.top_px + int(top),
                "width_px": width,
                "height_px": height,
                "mpp": float(field.mpp),
                "fov_mpp": float(fov_mpp),
                "boxes_px": parts[listed],
                "classes": tuple(str(name) for name in answers[listed]),
            }


def _clip(
    boxes: npt.NDArray[np.float64], left: float, top: float, right: float, bottom: float
) -> npt.NDArray[np.float64]:
    return np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))
