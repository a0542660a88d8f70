# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import verify_metadata

from tests.bundles.bundle_files import ROOT
from tests.inference.export.small_models import (
    CLASSES,
    NUCLEI_BUNDLE,
    TISSUE_BUNDLE,
    save_small,
    small_detector,
    small_tri_cnn,
)
from tests.inference.nuclei.conftest import SMALLEST
from tral_monai.errors import AgreementError, CheckpointError, ConfigError
from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.inference.export.bundle_folder import export_bundle
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

SCHEMA = ROOT / "tests" / "bundles" / "meta_schema.json"
EVERYWHERE = {
    *("LICENSE", "SHA256SUMS", "export.json", "docs/README.md", "docs/data_license.txt"),
    *("configs/inference.yaml", "configs/evaluate.yaml", "configs/metadata.json", "configs/logging.conf"),
    *("models/model.pt", "models/check_tiles.npz"),
}


def quiet(*args, **settings):
    return export_bundle(*args, tiles=2, report=lambda line: None, **settings)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_folder_holds(plain):
    assert files_of(plain) == EVERYWHERE


def test_with_every_format(in_all_formats):
    folder, lines = in_all_formats
    others = {"model.onnx", "model.xml", "model.bin", "model.ts", "model.pt2"}
    assert files_of(folder) == EVERYWHERE | {f"models/{name}" for name in others}
    record = json.loads((folder / "export.json").read_text())
    assert set(record["check"]["agreement"]) == {"checkpoint", "onnx", "openvino", "torchscript", "pt2"}
    for found in record["check"]["agreement"].values():
        assert (found["tiles"], found["class_agreement"]) == (20, 1.0)
        assert found["largest_probability_difference"] < 1e-4
    assert [line.split(":")[0] for line in lines if "agree with the source" in line] == list(
        record["check"]["agreement"]
    )


def test_no_file_names_a_folder_of_this_machine(in_all_formats, tmp_path_factory):
    here = {
        str(tmp_path_factory.getbasetemp()).encode(),
        str(ROOT).encode(),
        str(Path(torch.__file__).parents[1]).encode(),
    }
    for path in in_all_formats[0].rglob("*"):
        if path.is_file():
            assert not [name for name in here if name in path.read_bytes()], path.name


def test_the_checkpoint_is_the_same_network(plain, checkpoint):
    assert weights_sha256(load_checkpoint(plain / "models" / "model.pt")) == weights_sha256(load_checkpoint(checkpoint))


def test_metadata_is_true_of_the_model(plain):
    path = plain / "configs" / "metadata.json"
    verify_metadata(meta_file=str(path), filepath=str(SCHEMA), hash_val=hashlib.md5(SCHEMA.read_bytes()).hexdigest())
    metadata = json.loads(path.read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert (image["num_channels"], image["spatial_shape"]) == (6, [128, 128])
    assert list(image["channel_def"].values())[3:] == ["red 10x", "green 10x", "blue 10x"]
    assert pred["channel_def"] == {"0": "Stroma", "1": "Muscle", "2": "Blood"}
    assert pred["num_channels"] == 3
    assert metadata["pytorch_version"].split("+")[0] == torch.__version__.split("+")[0]
    assert re.fullmatch(r"0\.1\.0\+[0-9a-f]{8}", metadata["version"])
    assert metadata["version"] in metadata["changelog"]


def test_what_is_said_of_the_model(checkpoint, tmp_path):
    folder = quiet(TISSUE_BUNDLE, checkpoint, tmp_path / "x", version="3.1", data_source="12 slides of hospital B")
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["version"] == "3.1"
    readme = (folder / "docs" / "README.md").read_text()
    assert "| Trained on | 12 slides of hospital B |" in readme
    assert f"| Classes | {', '.join(CLASSES)} |" in readme
    assert "--bundle_root x --config_file x/configs/inference.yaml" in readme


def test_a_model_that_computes_nothing_leaves_nothing(tmp_path):
    network = small_tri_cnn()
    with torch.no_grad():
        network.head[-1].bias.fill_(float("nan"))
    source = save_checkpoint(tmp_path / "model.pt", network)
    target = tmp_path / "out" / "x"
    with pytest.raises(AgreementError, match=r"checkpoint does not compute .* 0\.00 % of 2 classes agree"):
        quiet(TISSUE_BUNDLE, source, target)
    assert list(target.parent.iterdir()) == []


def test_a_folder_that_is_there_is_kept(checkpoint, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already; give another output_dir"):
        quiet(TISSUE_BUNDLE, checkpoint, tmp_path / "x")
    assert files_of(tmp_path) == {"x/mine.txt"}


@pytest.mark.parametrize("kind", ["detector for tissue", "classifier for nuclei"])
def test_a_checkpoint_of_the_other_bundle(kind, checkpoint, tmp_path):
    if kind == "detector for tissue":
        bundle, path = TISSUE_BUNDLE, save_checkpoint(tmp_path / "model.pt", small_detector())
        expected = "needs a checkpoint of TriCNN, but model.pt is of OpenSetRCNN"
    else:
        bundle, path = NUCLEI_BUNDLE, checkpoint
        expected = "needs a checkpoint of OpenSetRCNN, but model.pt is of TriCNN"
    with pytest.raises(CheckpointError, match=expected):
        quiet(bundle, path, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_no_bundle(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="is no bundle: it lacks LICENSE, configs/metadata.json"):
        quiet(tmp_path, checkpoint, tmp_path / "x")


def test_a_bundle_of_somebody_else(checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(TISSUE_BUNDLE, other)
    (other / "configs" / "inference.yaml").write_text("mapper: {_target_: theirs.Mapper}\n")
    with pytest.raises(ConfigError, match="only bundles of this package can be exported"):
        quiet(other, checkpoint, tmp_path / "x")


def gate_of(network) -> ExitGate:
    return ExitGate(
        classes=network.classes,
        weights_sha256=weights_sha256(network),
        context="tile",
        magnifications=(10.0,),
        weight=torch.zeros(3, 4),
        bias=torch.zeros(3),
        temperature=1.0,
        threshold=0.9,
        undefined_below=0.6,
        damaged_at_least=0.9,
    )


def test_a_gate_travels_with_its_model(checkpoint, tmp_path):
    gate = gate_of(load_checkpoint(checkpoint))
    folder = quiet(TISSUE_BUNDLE, checkpoint, tmp_path / "x", exit_gate=gate.save(tmp_path / "gate.pt"))
    assert ExitGate.load(folder / "models" / "exit_gate.pt").sha256 == gate.sha256
    assert "--early_exit x/models/exit_gate.pt" in (folder / "docs" / "README.md").read_text()


def test_a_gate_of_another_model(checkpoint, tmp_path):
    gate = gate_of(small_tri_cnn(seed=1)).save(tmp_path / "gate.pt")
    with pytest.raises(CheckpointError, match="the exit gate was made for the weights"):
        quiet(TISSUE_BUNDLE, checkpoint, tmp_path / "x", exit_gate=gate)


def test_what_only_the_other_network_has(checkpoint, tmp_path):
    detector = save_checkpoint(tmp_path / "detector.pt", small_detector())
    with pytest.raises(ConfigError, match="only a nucleus detector has an auxiliary detector"):
        quiet(TISSUE_BUNDLE, checkpoint, tmp_path / "x", auxiliary=detector)
    with pytest.raises(ConfigError, match="only a tissue classifier has an early exit"):
        quiet(NUCLEI_BUNDLE, detector, tmp_path / "x", exit_gate=checkpoint)
    with pytest.raises(ConfigError, match="an auxiliary detector has the role 'prototype'"):
        quiet(NUCLEI_BUNDLE, detector, tmp_path / "x", auxiliary=detector)
    with pytest.raises(ConfigError, match=r"has tiles of 128 px, but tile_px is 64"):
        quiet(TISSUE_BUNDLE, checkpoint, tmp_path / "x", tile_px=64)


def test_a_detector_with_its_auxiliary_one(tmp_path):
    source = save_checkpoint(tmp_path / "model.pt", small_detector())
    other = OpenSetRCNN(("tumour", "lymphocyte"), role="prototype", seed=1, **SMALLEST)
    save_checkpoint(tmp_path / "auxiliary.pt", other)
    folder = quiet(NUCLEI_BUNDLE, source, tmp_path / "x")
    assert files_of(folder) == EVERYWHERE | {"models/auxiliary.pt"}
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {"0": "background", "1": "tumour", "2": "lymphocyte"}
    assert "models/auxiliary.pt" not in files_of(quiet(NUCLEI_BUNDLE, source, tmp_path / "y", auxiliary=None))


def test_small_is_what_its_name_says(tmp_path):
    assert save_small(tmp_path).stat().st_size < 5 << 20
