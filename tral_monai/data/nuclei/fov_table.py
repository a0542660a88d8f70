# SPDX-License-Identifier: Apache-2.0
"""The table of fields of view (FOVs): one row is one picture that a detector sees, with the nuclei in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import CohortError

FOV_COLUMNS = (
    "id",         # int64, unique
    "field",      # name of the field that the FOV was cut from
    "slide",      # these three: "" where unknown
    "patient",
    "hospital",
    "image",      # path of the image file, "" where there is none
    "left_px",    # where the FOV lies in the image, in pixels of the image
    "top_px",
    "width_px",
    "height_px",
    "mpp",        # micrometres per pixel of the image
    "fov_mpp",    # micrometres per pixel of the FOV as the detector sees it; boxes_px are in these pixels
    "boxes_px",   # (k, 4) float32: xmin, ymin, xmax, ymax (exclusive) in the FOV at fov_mpp
    "classes",    # k names: class names, or in a training table the answers; "ignored" may occur
)  # fmt: skip
"""Columns of the table, in order. A split column (``part``: ``train``, ``val`` or ``test``) may follow."""


def fov_size_px(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Size of every FOV as the detector sees it: (n, 2) width and height in pixels at ``fov_mpp``."""
    size = table[["width_px", "height_px"]].to_numpy(np.float64)
    scale = (table["mpp"] / table["fov_mpp"]).to_numpy(np.float64)
    return np.maximum(np.rint(size * scale[:, None]), 1).astype(np.int64)


def write_fovs(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write the table as parquet, replaced in one step."""
    out = table.copy()
    out["boxes_px"] = _objects([np.asarray(boxes, dtype=np.float32).ravel() for boxes in table["boxes_px"]])
    out["classes"] = _objects([list(names) for names in table["classes"]])
    with atomic_path(Path(path)) as temporary:
        out.to_parquet(temporary, index=False)


def read_fovs(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that :func:`write_fovs` wrote.

    Raises:
        CohortError: The file is missing, is no parquet table, or lacks columns.
    """
    file = Path(path)
    if not file.is_file():
        raise CohortError(f"there is no table of fields of view '{file.name}'; check the path {os.fspath(path)!r}")
    try:
        table = pd.read_parquet(file)
    except Exception as error:  # pyarrow has many ways to say that this is no parquet file
        raise CohortError(f"{file.name} is not a parquet table of fields of view: {error}") from error
    check_columns(table, file.name)
    table["boxes_px"] = _objects([np.asarray(flat, dtype=np.float32).reshape(-1, 4) for flat in table["boxes_px"]])
    table["classes"] = _objects([tuple(str(name) for name in names) for names in table["classes"]])
    return table


def check_columns(table: pd.DataFrame, name: str, columns: Sequence[str] = FOV_COLUMNS) -> None:
    """Raise CohortError unless the table has these columns."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise CohortError(f"{name} lacks the columns {missing}; a table of fields of view has {list(columns)}")


def _objects(values: list[Any]) -> npt.NDArray[np.object_]:
    """One object per row, also where all have the same shape."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column
