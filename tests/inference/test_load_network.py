# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.bundles.bundle_files import SMALL
from tests.inference.nuclei.conftest import SMALLEST
from tral_monai.errors import CheckpointError
from tral_monai.inference.load_network import load_tissue_network, require_finite
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN


def test_a_tissue_classifier(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model.pt", TriCNN(["Stroma", "Muscle"], **SMALL, seed=0).train())
    network = load_tissue_network(path)
    assert network.classes == ("Stroma", "Muscle")
    assert not network.training


def test_a_detector_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model.pt", OpenSetRCNN(["a", "b"], role="target", seed=0, **SMALLEST))
    with pytest.raises(CheckpointError, match=r"model\.pt must be a checkpoint of TriCNN, but is of OpenSetRCNN"):
        load_tissue_network(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["head.1.weight", "branches.0.bn1.running_var"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float, what: str) -> None:
    network = TriCNN(["Stroma", "Muscle"], **SMALL, seed=0)
    tensors = network.state_dict()
    name = what if what in tensors else next(key for key in tensors if key.endswith(what.rpartition(".")[2]))
    with torch.no_grad():
        tensors[name].view(-1)[0] = value
    path = save_checkpoint(tmp_path / "model.pt", network)
    with pytest.raises(CheckpointError, match=rf"model\.pt holds weights that are not finite \({name}\)"):
        load_tissue_network(path)


def test_finite_weights_and_counters_are_left_alone() -> None:
    require_finite(torch.nn.BatchNorm2d(3), "model.pt")
