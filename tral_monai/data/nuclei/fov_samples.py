# SPDX-License-Identifier: Apache-2.0
"""Labelled fields of view however they come: a parquet file, a table, or a short list of dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.data.nuclei.field_check import image_size
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS, check_columns, read_fovs
from tral_monai.errors import CohortError

NEEDED_KEYS = ("image", "boxes", "classes", "mpp")


def fov_samples(
    data: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]], *, fov_mpp: float | None = None
) -> pd.DataFrame:
    """A table of FOVs.

    Args:
        data: A parquet file of ``write_fovs``, such a table, or dicts. A dict needs ``image`` (path), ``boxes``
            (k lists of xmin, ymin, xmax, ymax in pixels of the image), ``classes`` (k names) and ``mpp``; it may have
            ``id`` and other columns of the table. It stands for the whole image.
        fov_mpp: For dicts: the resolution to bring the images to. None leaves them as they are.

    Returns:
        The table, with a fresh row index.

    Raises:
        CohortError: Something is missing, or ids occur twice.
        SlideError: An image of a dict cannot be opened.
    """
    if isinstance(data, (str, Path)):
        table = read_fovs(data)
    elif isinstance(data, pd.DataFrame):
        check_columns(data, "the table")
        table = data
    else:
        rows = [_row(sample, number, fov_mpp) for number, sample in enumerate(data)]
        table = pd.DataFrame(rows, columns=list(FOV_COLUMNS))
    table = table.reset_index(drop=True)
    if table["id"].duplicated().any():
        twice = table.loc[table["id"].duplicated(), "id"].tolist()
        raise CohortError(f"ids of fields of view must occur once, but {twice[:5]} occur more often; number them anew")
    return table


def _row(sample: Mapping[str, Any], number: int, fov_mpp: float | None) -> dict[str, Any]:
    name = Path(str(sample.get("image", ""))).name or f"sample {number}"
    missing = [key for key in NEEDED_KEYS if key not in sample]
    if missing:
        raise CohortError(f"{name}: lacks {missing}; a sample has {list(NEEDED_KEYS)}")
    mpp = float(sample["mpp"])
    if not (np.isfinite(mpp) and mpp > 0):
        raise CohortError(f"{name}: mpp must be micrometres per pixel above 0, but is {sample['mpp']!r}")
    path = Path(str(sample["image"]))
    width, height = image_size(path, mpp)
    to_mpp = mpp if fov_mpp is None else float(fov_mpp)
    boxes = _scaled(sample["boxes"], (width, height), mpp / to_mpp, name)
    row = {
        "id": int(sample.get("id", number)),
        "field": path.stem,
        "slide": "",
        "patient": "",
        "hospital": "",
        "image": str(path),
        "left_px": 0,
        "top_px": 0,
        "width_px": width,
        "height_px": height,
        "mpp": mpp,
        "fov_mpp": to_mpp,
        "boxes_px": boxes,
        "classes": tuple(str(answer) for answer in sample["classes"]),
    }
    row.update({key: str(sample[key]) for key in ("field", "slide", "patient", "hospital") if sample.get(key)})
    return row


def _scaled(boxes: Any, size_px: tuple[int, int], factor: float, name: str) -> npt.NDArray[np.float32]:
    """Boxes of an image, clipped to it, in pixels of the image resampled by ``factor``."""
    array = np.asarray(boxes, dtype=np.float64)
    if array.size % 4 or (array.size and array.shape[-1] != 4):
        raise CohortError(f"{name}: boxes must be lists of xmin, ymin, xmax, ymax, but have the shape {array.shape}")
    clipped = np.clip(array.reshape(-1, 4), 0, [*size_px, *size_px])
    scale = [max(float(np.rint(side * factor)), 1.0) / side for side in size_px]
    return (clipped * [*scale, *scale]).astype(np.float32)
