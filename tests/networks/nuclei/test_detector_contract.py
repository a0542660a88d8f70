# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader, CheckpointSaver

from tral_monai.errors import CheckpointError
from tral_monai.networks.checkpoint import load_checkpoint, read_contract, save_checkpoint
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.detector_contract import check_detector_contract
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN

Build = Callable[..., OpenSetRCNN]


@pytest.mark.parametrize(
    "options",
    [
        {"loss_prediction": True, "class_colors": {"dark": (1, 2, 3)}},
        {"role": "prototype", "projection": None},
        {"role": "k_plus_one", "upsample": 1.5},
        {"head": "softmax", "frozen_batch_norm": True, "normalization": "unit"},
    ],
)
def test_a_detector_comes_back_from_its_file_alone(
    build: Build, field: Callable[..., tuple], tmp_path: Path, options: dict[str, object]
) -> None:
    network = build(**options)
    path = save_checkpoint(tmp_path / "model.pt", network)
    loaded = load_checkpoint(path, expect=OpenSetRCNN)
    assert not loaded.training
    assert loaded.contract.state_dict() == network.contract.state_dict()
    image, _ = field(0)
    before, after = (detect(n, [image], want={"features"}).detections for n in (network, loaded))
    np.testing.assert_array_equal(before.boxes_px, after.boxes_px)
    np.testing.assert_array_equal(before.features, after.features)


def test_the_contract_says_what_the_weights_are_for(build: Build, tmp_path: Path) -> None:
    contract = read_contract(save_checkpoint(tmp_path / "model.pt", build(class_colors={"red": [200, 20, 20]})))
    settings = contract.pop("settings")
    assert isinstance(contract.pop("package_version"), str)
    assert contract.pop("normalization")["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert contract == {
        "format": "tral_monai.OpenSetRCNN",
        "format_version": 1,
        "classes": ["dark", "red"],
        "role": "target",
        "head": "evidential",
        "backbone": "torchvision:resnet18",
        "loss_prediction": False,
        "frozen_batch_norm": False,
        "class_colors": {"red": [200, 20, 20]},
    }
    assert settings["strides"] == [4, 8]
    assert settings["fov_mpp"] == 0.25


def test_monais_handlers_save_and_load_it(build: Build, tmp_path: Path) -> None:
    network = build()
    saver = CheckpointSaver(
        save_dir=str(tmp_path), save_dict={"model": network, "contract": network.contract}, save_final=True,
        final_filename="model.pt",
    )  # fmt: skip
    engine = Engine(lambda engine, batch: None)
    saver.attach(engine)
    engine.run([0], max_epochs=1)
    assert load_checkpoint(tmp_path / "model.pt").classes == ("dark", "red")
    other = build(seed=9)
    engine = Engine(lambda engine, batch: None)
    CheckpointLoader(
        load_path=str(tmp_path / "model.pt"), load_dict={"model": other, "contract": other.contract}
    ).attach(engine)
    engine.run([0], max_epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("red", "dark")}, "classes: .*read as other classes"),
        ({"role": "k_plus_one"}, "role: the checkpoint has 'target', this network 'k_plus_one'"),
        ({"head": "softmax"}, "head: "),
        ({"upsample": 2.0}, "upsample: the checkpoint has 1.0, this network 2.0 .*another size"),
        ({"representation": 32}, "representation: "),
    ],
)
def test_a_contract_of_another_detector_is_refused(build: Build, options: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build(**options).contract.load_state_dict(build().contract.state_dict())


def test_thresholds_and_loss_weights_may_differ(build: Build) -> None:
    build(score_threshold=0.2, nms_iou=0.2, prototype_weight=1.0).contract.load_state_dict(
        build().contract.state_dict()
    )


def test_bad_contracts(build: Build, tmp_path: Path) -> None:
    good = build().contract.state_dict()
    with pytest.raises(CheckpointError, match=r"format 'tral_monai.OpenSetRCNN', but it is 'int'"):
        check_detector_contract(3)
    with pytest.raises(CheckpointError, match=r"but it is 'tral_monai.TriCNN'"):
        check_detector_contract({"format": "tral_monai.TriCNN"})
    with pytest.raises(CheckpointError, match=r"format version 9, this package \(.*\) reads 1"):
        check_detector_contract({**good, "format_version": 9})
    with pytest.raises(CheckpointError, match="lacks role"):
        check_detector_contract({k: v for k, v in good.items() if k != "role"})
    with pytest.raises(CheckpointError, match="no detector can be built.*unknown backbone"):
        OpenSetRCNN.from_contract({**good, "backbone": "torchvision:resnet1"})
    torch.save({"model": {}, "contract": good}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"the weights in model.pt do not fit the contract"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_checkpoint_of_the_other_network_is_refused(build: Build, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model.pt", build())
    with pytest.raises(CheckpointError, match=r"model.pt must be a checkpoint of TriCNN, but is of OpenSetRCNN"):
        load_checkpoint(path, expect=TriCNN)
    with pytest.raises(CheckpointError, match="only a TriCNN can be loaded frozen"):
        load_checkpoint(path, frozen=True)
