# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.inference.export.small_models import TISSUE_BUNDLE, save_small
from tral_monai.inference.export.bundle_folder import export_bundle


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TriCNN of two magnifications and three classes."""
    return save_small(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def plain(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It, exported without other formats; read it only."""
    folder = tmp_path_factory.mktemp("plain") / "my_tissue_model"
    return export_bundle(TISSUE_BUNDLE, checkpoint, folder, tiles=4, report=lambda line: None)


@pytest.fixture(scope="session")
def in_all_formats(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """It, exported in every format, and what was reported; read it only."""
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    lines: list[str] = []
    formats = ["pt2", "torchscript", "openvino", "onnx"]
    folder = tmp_path_factory.mktemp("formats") / "my_tissue_model"
    return export_bundle(TISSUE_BUNDLE, checkpoint, folder, formats=formats, tiles=20, report=lines.append), lines
