# SPDX-License-Identifier: Apache-2.0
"""What a nucleus index was made from, as short notes that tell a changed data set from the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.annotations.nuclei.nucls_folds import read_nucls_folds
from tral_monai.errors import CohortError


def content_of_folder(path: Path) -> dict[str, Any]:
    """Names, sizes and times of all files under a folder (or of one file), as a hash.

    Times, not contents: a data set has thousands of images, and building an index again is cheaper than reading them.

    Raises:
        CohortError: There is no such folder.
    """
    if not path.exists():
        raise CohortError(f"there is no data set at '{path}'; check dataset_dir")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(json.dumps([file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns]).encode())
    return {"path": str(path.resolve()), "files": len(files), "sha256": digest.hexdigest()}


def content_of_fields(fields: Sequence[NucleusField]) -> dict[str, Any]:
    """The same for fields in memory: everything that an index takes from them."""
    digest = hashlib.sha256()
    for field in fields:
        place = [field.left_px, field.top_px, field.width_px, field.height_px, field.mpp]
        names = [field.name, str(field.image), field.slide, field.patient, field.hospital]
        digest.update(json.dumps([*names, *place, *field.classes, *field.problems]).encode())
        digest.update(np.ascontiguousarray(field.boxes_px, dtype="<f4").tobytes())
        digest.update(field.ignored.tobytes())
    return {"fields": len(fields), "sha256": digest.hexdigest()}


def read_fold_list(folds: Mapping[str, int] | str | Path | None) -> dict[str, int] | None:
    """A published list of folds, as slide -> fold in which it is tested.

    Args:
        folds: Such a mapping; a CSV file with the columns ``slide`` (or ``slide_name``) and ``fold``; the folder of
            NuCLS's fold files; or None.

    Raises:
        CohortError: The file is missing or lacks a column, or a slide stands in two folds.
        AnnotationError: The folder does not hold NuCLS's fold files.
    """
    if folds is None:
        return None
    if isinstance(folds, Mapping):
        return {str(slide): int(fold) for slide, fold in folds.items()}
    path = Path(folds)
    if path.is_dir():
        published = read_nucls_folds(path)
        # Fold 999 is no part of the cross-validation: it trains on all.
        pairs = [(slide, number) for number, fold in published.items() if number != 999 for slide in fold.test]
    elif path.is_file():
        table = pd.read_csv(path)
        column = next((name for name in ("slide", "slide_name") if name in table), None)
        if column is None or "fold" not in table:
            raise CohortError(f"{path.name} has the columns {list(table.columns)}; a list of folds has slide and fold")
        pairs = [(str(slide), int(fold)) for slide, fold in table[[column, "fold"]].itertuples(index=False)]
    else:
        raise CohortError(f"there is no list of folds '{path.name}'; check fold_of_slide: {path}")
    found: dict[str, int] = {}
    twice = sorted({slide for slide, fold in pairs if found.setdefault(slide, fold) != fold})
    if twice:
        raise CohortError(f"{path.name} puts slides into more than one fold: {twice[:5]}; a slide is tested once")
    return found
