# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.bundles.nuclei.disc_fields import ACTIVE_LEARNING, FIELD_PX, KNOWN, MPP, SMALL, TRAIN, write_fields


@pytest.fixture(scope="session")
def disc_fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of twelve fields of 64 px of six patients, two known classes and one unknown."""
    return write_fields(tmp_path_factory.mktemp("disc_fields"))


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs keep the trainings that they have in common: the first round is trained once for all tests."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def active_learning(disc_fields: Path, shared_dir: Path) -> Callable[..., Any]:
    """Two rounds on eight fields of view (four test): two to begin with, two asked for."""

    def run(output_dir: Path, *overlays: Path, **overrides: Any) -> Any:
        from tral_monai.rounds.bundle_run import run_workflow

        data = {"dataset": "coco", "dataset_dir": str(disc_fields), "known": list(KNOWN), "folds": 3, "fov_px": None}
        run = {"rounds": 2, "initial_count": 3, "budget": 2, "query_fraction": None, "output_dir": str(output_dir)}
        settings = {**SMALL, **data, **run, "shared_dir": str(shared_dir), "report": False, **overrides}
        return run_workflow([ACTIVE_LEARNING, *overlays], **settings)

    return run


@pytest.fixture(scope="session")
def run_folder(active_learning: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of osal_nd with its report; read it only."""
    folder = tmp_path_factory.mktemp("runs") / "osal_nd"
    active_learning(folder, strategy="osal_nd", report=True)
    return folder


@pytest.fixture(scope="session")
def samples(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of two tables of fields of view with answers for train.yaml: the run's pool and its test fields."""
    from tral_monai.data.nuclei.fov_table import read_fovs, write_fovs

    folder = tmp_path_factory.mktemp("samples")
    table = read_fovs(run_folder / "fovs.parquet")
    answers = [tuple(name if name in KNOWN else "unknown" for name in names) for names in table["classes"]]
    table["classes"] = pd.Series(answers, dtype=object)
    paths = {"train_samples": str(folder / "train.parquet"), "val_samples": str(folder / "val.parquet")}
    write_fovs(table[table["part"] == "train"], Path(paths["train_samples"]))
    write_fovs(table[table["part"] == "test"], Path(paths["val_samples"]))
    return paths


@pytest.fixture(scope="session")
def training(samples: dict[str, str]) -> dict[str, Any]:
    """Settings of train.yaml for these samples."""
    return {**SMALL, **samples, "classes": list(KNOWN), "fov_mpp": MPP, "fov_px": FIELD_PX, "verbose": False}


@pytest.fixture(scope="session")
def trained(training: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder and the finished workflow of a training that has learnt to find the discs."""
    from tral_monai.rounds.bundle_run import run_workflow

    folder = tmp_path_factory.mktemp("trained")
    longer = {"updates_per_epoch": 40, "max_epochs": 4, "val_interval": 2, "output_dir": str(folder)}
    return folder, run_workflow([TRAIN], **{**training, **longer})
