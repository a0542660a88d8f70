# SPDX-License-Identifier: Apache-2.0
"""NuCLS's published folds: ``fold_<k>_train.csv`` and ``fold_<k>_test.csv``, k = 1 to 5, and 999."""

from __future__ import annotations

import csv
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError

_FOLD_FILE = re.compile(r"fold_(\d+)_(train|test)\.csv", re.IGNORECASE)


@dataclass(frozen=True)
class NuclsFold:
    """Slides of one fold; all slides of one hospital are on one side.

    Attributes:
        train: Names of the slides to train on.
        test: Names of the slides to test on.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]


def read_nucls_folds(folder: str | os.PathLike[str]) -> dict[int, NuclsFold]:
    """Read the published folds.

    Args:
        folder: The folder ``train_test_splits``, or the one that holds it.

    Returns:
        The folds by number. Fold 999, published beside the five, may hold slides on both sides.

    Raises:
        AnnotationError: No fold file is there, one of a pair is missing, a file has no column ``slide_name``, or a
            slide is on both sides of one of the folds 1 to 5.
    """
    root = Path(folder)
    place = root / "train_test_splits" if (root / "train_test_splits").is_dir() else root
    sides: dict[int, dict[str, tuple[str, ...]]] = {}
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        match = _FOLD_FILE.fullmatch(path.name)
        if match:
            sides.setdefault(int(match[1]), {})[match[2].lower()] = _slides(path)
    if not sides:
        raise AnnotationError(
            f"{root.name}: expected fold_1_train.csv, fold_1_test.csv, ... in it or in its folder train_test_splits; "
            f"check the path {root}"
        )
    folds = {}
    for number, pair in sorted(sides.items()):
        for side in ("train", "test"):
            if side not in pair:
                raise AnnotationError(f"{place.name}: fold_{number}_{side}.csv is missing; copy it next to the others")
        both = sorted(set(pair["train"]) & set(pair["test"]))
        if both and number != 999:
            raise AnnotationError(f"{place.name}: fold {number} has the slides {both} on both sides; copy it again")
        folds[number] = NuclsFold(pair["train"], pair["test"])
    return folds


def _slides(path: Path) -> tuple[str, ...]:
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    if rows and "slide_name" not in rows[0]:
        raise AnnotationError(f"{path.name}: expected a column 'slide_name', but found {list(rows[0])}")
    return tuple(row["slide_name"] for row in rows)
