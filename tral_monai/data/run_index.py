# SPDX-License-Identifier: Apache-2.0
"""The triplet index of one run: made once from the cohort, kept in the run's folder, divided by split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tral_monai.annotations.class_map import ClassMap
from tral_monai.atomic_file import atomic_path
from tral_monai.data.class_names import identity_class_map
from tral_monai.data.cohort import SPLITS, Cohort, read_cohort
from tral_monai.data.triplet_index import build_triplet_index, read_index, write_index
from tral_monai.errors import CohortError
from tral_monai.file_hash import file_sha256
from tral_monai.progress import progress_bar
from tral_monai.slides.fingerprint import slide_fingerprint

logger = logging.getLogger(__name__)

POOL_SPLITS = ("train", "pool")
"""Splits that a strategy may ask from. The first labels come from ``train``."""


class RunIndex:
    """Annotated tiles of a cohort, as a run needs them.

    The index is built at first use and kept as ``<output_dir>/index.parquet`` beside a note of what it was built from
    (slides, annotations and settings); another input builds it anew.

    Args:
        cohort: the cohort's CSV file.
        output_dir: the run's folder.
        class_map: YAML file of class rules; None takes every class name in the annotations as it stands.
        allow_patient_overlap: accept one patient on two sides of the split.
        coverage: part of a tile that must lie in an annotation of its class.
        stride_px: grid step at 40x, in pixels.
        cap_per_slide_and_class: at most so many tiles; None sets no limit.
        tissue_method: how tissue is told from glass, ``auto`` or ``paper``.
        seed: for the draw under the cap.
        splits: read only the slides of these splits, each of which must have annotated tiles: what an evaluation needs.
            None reads all, and the pool must have some.

    Raises:
        CohortError: no annotated tile is left in the pool, or in one of ``splits``.
    """

    def __init__(
        self,
        cohort: str | Path,
        output_dir: str | Path,
        *,
        class_map: str | Path | None = None,
        allow_patient_overlap: bool = False,
        coverage: float = 0.7,
        stride_px: int = 128,
        cap_per_slide_and_class: int | None = None,
        tissue_method: str = "auto",
        seed: int = 0,
        splits: Sequence[str] | None = None,
    ) -> None:
        self._cohort = read_cohort(cohort, allow_patient_overlap=allow_patient_overlap)
        if splits is not None:
            self._cohort = _only(self._cohort, splits, Path(cohort).name)
        self._rules = ClassMap.from_yaml(class_map) if class_map is not None else identity_class_map(self._cohort)
        self._settings: dict[str, Any] = {
            "coverage": coverage,
            "stride_px": stride_px,
            "cap_per_slide_and_class": cap_per_slide_and_class,
            "tissue_method": tissue_method,
            "seed": seed if cap_per_slide_and_class is not None else 0,
        }
        path = Path(output_dir) / "index.parquet"
        note, made_from = path.with_suffix(".json"), self._made_from()
        if path.is_file() and note.is_file() and json.loads(note.read_text()) == made_from:
            self.table = read_index(path)
        else:
            self.table = build_triplet_index(
                self._cohort, self._rules, progress=progress_bar("slides"), **self._settings
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            note.unlink(missing_ok=True)  # while the index is being replaced, no note may speak for it
            write_index(self.table, path)
            with atomic_path(note) as temporary:
                temporary.write_text(json.dumps(made_from, indent=1))
        empty = [name for name in splits if self.split(name).empty] if splits is not None else []
        if empty or (splits is None and self.pool.empty):
            raise CohortError(
                f"{cohort}: no annotated tile lies in {_quoted(empty or POOL_SPLITS)}; check the annotations' class "
                "names, the tissue mask and the slides' mpp with `python -m tral_monai cohort`"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the network's order."""
        return tuple(self._rules.classes)

    @property
    def pool(self) -> pd.DataFrame:
        """Tiles that may be asked for."""
        return self.table[self.table["split"].isin(POOL_SPLITS) & (self.table["class"] != "")].reset_index(drop=True)

    def split(self, name: str) -> pd.DataFrame:
        """Annotated tiles of one split, such as ``val``."""
        return self.table[(self.table["split"] == name) & (self.table["class"] != "")].reset_index(drop=True)

    @property
    def sha256(self) -> str:
        """Hash of which tiles there are and what they show: runs with another one are other runs."""
        columns = ["id", "slide", "x_level0", "y_level0", "class", "split"]
        return hashlib.sha256(self.table[columns].to_csv(index=False).encode()).hexdigest()

    def info(self) -> dict[str, Any]:
        """What a report tells about the data."""
        counts = self.pool["class"].value_counts()
        return {
            "class_colors": {name: list(color) for name, color in self._rules.colors.items()},
            "class_pool_sizes": {name: int(counts.get(name, 0)) for name in self.classes},
            "split_sizes": {str(k): int(v) for k, v in self.table["split"].value_counts().items()},
            "index_settings": self._settings,
        }

    def _made_from(self) -> dict[str, Any]:
        rows = [
            {
                "slide": row.slide.name,
                "content": slide_fingerprint(row.slide) if row.slide.is_file() else None,
                "path": str(row.slide),
                "annotations": file_sha256(row.annotations) if row.annotations else None,
                "row": [row.patient, row.split, row.mpp, row.part],
            }
            for row in self._cohort.rows
        ]
        return {"rows": rows, "rules": self._rules.to_dict(), "settings": self._settings}


def _only(cohort: Cohort, splits: Sequence[str], name: str) -> Cohort:
    """The slides with rows in some splits; each split must be known and have a row.

    Such a slide keeps its rows in other splits, so that a tile which both claim is left out as it always is.
    """
    for split in splits:
        if split not in SPLITS:
            raise CohortError(f"unknown split '{split}', expected {', '.join(SPLITS)}")
        if not cohort.split(split):
            found = sorted({row.split for row in cohort.rows})
            raise CohortError(f"{name} has no row in {_quoted([split])}; its rows are in {_quoted(found)}")
    slides = {row.slide for row in cohort.rows if row.split in splits}
    return dataclasses.replace(cohort, rows=tuple(row for row in cohort.rows if row.slide in slides))


def _quoted(splits: Sequence[str]) -> str:
    names = " and ".join(f"'{split}'" for split in splits)
    return f"split {names}" if len(splits) == 1 else f"the splits {names}"
