# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.label_app.server_process import LabelServer, running_server
from tests.label_app.sites import SMALL_TISSUE, make_studies, random_tissue_model, write_slides_table
from tral_monai.data.generated.layout import CLASSES

SPLITS = {"A-01": "train", "B-01": "train", "A-02": "val", "B-02": "val"}


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """annotations.json of four generated fields of nuclei of 512 px, beside their images/."""
    from tral_monai.data.generated.fields import generate_fields

    return generate_fields(tmp_path_factory.mktemp("fields"), n_fields=4, patients=4, seed=0)


@pytest.fixture(scope="session")
def label_server(tiny_cohort: Path, fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server of both tasks, with a tissue model that knows nothing and none of nuclei; tests share it.

    Its round has more regions than the tests ask for. Nobody may train on it to the end.
    """
    pytest.importorskip("monailabel")
    folder = tmp_path_factory.mktemp("label_server")
    studies = make_studies(folder / "studies", tiny_cohort, SPLITS, dotted=True)
    rows = [("slide", "patient", "split", "mpp")]
    rows += [(f"{name}.tif", name, split, "") for name, split in SPLITS.items()]
    for field in sorted((fields.parent / "images").glob("*.png")):
        shutil.copyfile(field, studies / field.name)
        rows.append((field.name, field.stem, "val" if len(rows) == 5 else "train", "0.25"))
    write_slides_table(studies, [*rows, ("B-01.scan.2.tif", "B-01", "train", "")])
    conf = {
        "tissue_checkpoint": str(random_tissue_model(folder / "random.pt")),
        "tissue_overlay": "null",
        "tissue_overrides": SMALL_TISSUE,
        "tissue_classes": list(CLASSES),
        "tissue_strategy": "random",
        "tissue_region_um": 64,
        "tissue_budget": 60,
        "tissue_val_budget": 6,
        "nuclei_classes": "neoplastic, lymphocyte, stromal",
        "nuclei_region_um": 32,
        "nuclei_budget": 20,
        "nuclei_val_budget": 4,
        "mpp": 0.25,
    }
    with running_server(folder, studies, conf) as server:
        yield server
