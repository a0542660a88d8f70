# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.backbones import build_backbone
from tral_monai.networks.nuclei.backbone import FpnBackbone

IMAGE = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("torchvision:resnet18", (4, 8, 16, 32)),
        ("torchvision:mobilenet_v3_small", (4, 8, 16)),
        ("timm:mobilenetv4_conv_small_050", (4, 8, 16)),
        ("timm:tf_efficientnet_lite0", (8, 16)),
    ],
)
def test_levels_have_the_strides_asked_for(name: str, strides: tuple[int, ...]) -> None:
    network = FpnBackbone(name, strides=strides, channels=8, pool_level=True)
    levels = network.eval()(IMAGE)
    assert network.level_names == [*map(str, strides), "pool"]
    shapes = {key: tuple(level.shape) for key, level in levels.items()}
    expected = {str(s): (1, 8, 64 // s, 128 // s) for s in strides}
    assert shapes == expected | {"pool": (1, 8, 32 // strides[-1], 64 // strides[-1])}


@pytest.mark.parametrize(
    "name", ["timm:tf_efficientnet_lite0", "torchvision:resnet18", "torchvision:mobilenet_v3_small"]
)
def test_nothing_is_kept_that_is_not_used(name: str) -> None:
    """Unused weights would cost time, and DDP refuses parameters without a gradient."""
    network = FpnBackbone(name, strides=(4, 8), channels=8, pool_level=False)
    sum(level.sum() for level in network(IMAGE).values()).backward()  # type: ignore[union-attr]
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18", "timm:mobilenetv4_conv_small_050"])
def test_pretrained_weights_reach_the_maps(name: str, tmp_path: Path) -> None:
    full, _ = build_backbone(name)
    torch.save(full.state_dict(), tmp_path / "weights.pth")
    network = FpnBackbone(name, strides=(4,), channels=8, pool_level=False, pretrained_path=tmp_path / "weights.pth")
    theirs = {tuple(p.shape): p for p in full.parameters() if p.dim() == 4}  # the last convolution of each shape
    first = next(p for p in network.body.parameters() if p.dim() == 4)
    assert any(torch.equal(first, p) for p in full.parameters() if p.shape == first.shape)
    assert len(theirs) > 1
    assert network.frozen_batch_norm


def test_batch_norm_is_frozen_with_pretrained_weights_only(tmp_path: Path) -> None:
    full, _ = build_backbone("torchvision:resnet18")
    torch.save(full.state_dict(), tmp_path / "weights.pth")
    for path, frozen in ((None, False), (tmp_path / "weights.pth", True)):
        network = FpnBackbone(
            "torchvision:resnet18", strides=(4,), channels=8, pool_level=False, pretrained_path=path
        ).train()
        layers = [m for m in network.body.modules() if isinstance(m, nn.BatchNorm2d)]
        before = [layer.running_mean.clone() for layer in layers if layer.running_mean is not None]
        network(IMAGE)
        after = [layer.running_mean for layer in layers if layer.running_mean is not None]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) == frozen
        assert all(p.requires_grad != frozen for layer in layers for p in layer.parameters())


def test_frozen_stages_count_as_in_torchvision() -> None:
    def trainable(stages: int) -> set[str]:
        network = FpnBackbone(
            "torchvision:resnet18", strides=(4, 8), channels=8, pool_level=False, frozen_stages=stages
        )
        names = [key for key, p in network.body.network.named_parameters() if p.requires_grad]
        return {name.split(".")[0] for name in names}

    assert trainable(0) == {"conv1", "bn1", "layer1", "layer2"}
    assert trainable(1) == {"layer1", "layer2"}
    assert trainable(2) == {"layer2"}


def test_bad_backbones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strides .*but not \\[64\\]"):
        FpnBackbone("torchvision:resnet18", strides=(32, 64), channels=8, pool_level=False)
    with pytest.raises(ConfigError, match="no sequence of feature maps"):
        FpnBackbone("torchvision:googlenet", strides=(8,), channels=8, pool_level=False)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights.pth does not hold weights of this backbone"):
        FpnBackbone(
            "torchvision:resnet18", strides=(8,), channels=8, pool_level=False, pretrained_path=tmp_path / "weights.pth"
        )
