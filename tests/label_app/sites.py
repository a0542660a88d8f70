# SPDX-License-Identifier: Apache-2.0
"""Studies folders for servers under test: slides of the generated cohort, fields of nuclei, small models."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tral_monai.data.generated.layout import CLASSES

DOTTED = "B-01.scan.2"
"""Id of a slide whose name has dots."""


def make_studies(folder: Path, cohort: Path, splits: Mapping[str, str], *, dotted: bool = False) -> Path:
    """A studies folder with copies of a cohort's slides.

    Args:
        folder: to make.
        cohort: the cohort.csv.
        splits: ``train`` or ``val`` by slide id; other slides are left out.
        dotted: add a slide of a name with dots, of the patient of ``B-01``.
    """
    folder.mkdir(parents=True)
    rows = [("slide", "patient", "split", "mpp")]
    for name, split in splits.items():
        shutil.copyfile(cohort.parent / "slides" / f"{name}.tif", folder / f"{name}.tif")
        rows.append((f"{name}.tif", name, split, ""))
    if dotted:
        shutil.copyfile(cohort.parent / "slides" / "B-01.tif", folder / f"{DOTTED}.tif")
        rows.append((f"{DOTTED}.tif", "B-01", "train", ""))
    write_slides_table(folder, rows)
    return folder


def write_slides_table(studies: Path, rows: list[tuple[str, ...]]) -> None:
    """The table of the slides, its header first."""
    with (studies / "slides.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def random_tissue_model(path: Path) -> Path:
    """A tissue classifier that knows nothing, small enough for a slide in seconds."""
    from tral_monai.networks.checkpoint import save_checkpoint
    from tral_monai.networks.tri_cnn import TriCNN

    network = TriCNN(CLASSES, backbone="timm:mobilenetv3_small_050", hidden=[], feature_norm="none", seed=0)
    return save_checkpoint(path, network.eval())


SMALL_TISSUE: dict[str, Any] = {
    "backbone": "timm:mobilenetv3_small_050",
    "hidden": [],
    "frozen": True,
    "feature_norm": "batch",
    "optimizer_name": "AdamW",
    "optimizer_options": {},
    "learning_rate": 1.0e-3,
    "batch_size": 8,
    "max_epochs": 3,
    "augment": False,
}
"""Values of the tissue bundle's train.yaml with which a training takes a second, and learns little."""
