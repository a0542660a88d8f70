# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tral_monai.errors import CheckpointError
from tral_monai.inference.nuclei.load_detector import load_auxiliary, load_detector
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN


def test_both_detectors(tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN) -> None:
    save_checkpoint(tmp_path / "model.pt", detector)
    save_checkpoint(tmp_path / "auxiliary.pt", auxiliary)
    assert load_detector(tmp_path / "model.pt").role == "target"
    loaded = load_auxiliary(tmp_path / "auxiliary.pt")
    assert loaded is not None
    assert loaded.prototypes is not None
    assert loaded.prototypes.ready.tolist() == [True, True]


@pytest.mark.parametrize("nothing", [None, ""])
def test_the_auxiliary_one_may_be_missing(nothing: str | None) -> None:
    assert load_auxiliary(nothing) is None


def test_a_tissue_classifier_is_refused(tmp_path: Path) -> None:
    tissue = TriCNN(["Stroma", "Muscle"], backbone="timm:mobilenetv3_small_050", hidden=(4,), seed=0)
    save_checkpoint(tmp_path / "tissue.pt", tissue)
    with pytest.raises(CheckpointError, match=r"tissue\.pt must be a checkpoint of OpenSetRCNN, but is of TriCNN"):
        load_detector(tmp_path / "tissue.pt")


def test_a_detector_that_would_find_nothing_is_refused(tmp_path: Path, detector: OpenSetRCNN) -> None:
    """A detector with NaN in its weights finds nothing on any image, and says nothing."""
    broken = copy.deepcopy(detector)
    with torch.no_grad():
        list(broken.parameters())[-1].view(-1)[0] = float("nan")
    path = save_checkpoint(tmp_path / "model.pt", broken)
    with pytest.raises(CheckpointError, match=r"model\.pt holds weights that are not finite"):
        load_detector(path)


def test_auto_takes_the_auxiliary_detector_beside_the_target(
    tmp_path: Path, detector: OpenSetRCNN, auxiliary: OpenSetRCNN
) -> None:
    assert load_auxiliary("auto", beside=tmp_path / "model.pt") is None
    save_checkpoint(tmp_path / "auxiliary.pt", auxiliary)
    found = load_auxiliary("auto", beside=tmp_path / "model.pt")
    assert found is not None
    assert found.role == "prototype"
    save_checkpoint(tmp_path / "auxiliary.pt", detector)  # LfOSA's auxiliary detector has no prototypes either
    assert load_auxiliary("auto", beside=tmp_path / "model.pt") is None
    assert load_auxiliary("auto") is None
