# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.networks.backbones import build_backbone, default_normalization, resolve_backbone


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("vgg16", "torchvision:vgg16"),  # both libraries have one
        ("timm:vgg16", "timm:vgg16"),
        ("tf_efficientnet_lite0", "timm:tf_efficientnet_lite0"),
        ("torchvision:resnet18", "torchvision:resnet18"),
    ],
)
def test_a_bare_name_is_looked_up_in_torchvision_first(name: str, full: str) -> None:
    assert resolve_backbone(name) == full
    assert resolve_backbone(full) == full


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown backbone 'resnet81' in torchvision and timm; near it: .*resnet18"):
        resolve_backbone("resnet81")
    with pytest.raises(ConfigError, match=r"unknown backbone 'torchvision:tf_efficientnet_lite0' in torchvision"):
        resolve_backbone("torchvision:tf_efficientnet_lite0")
    with pytest.raises(ConfigError, match="'keras:vgg16'"):
        resolve_backbone("keras:vgg16")


@pytest.mark.parametrize(
    ("name", "num_features"),
    [
        ("torchvision:alexnet", 256),
        ("torchvision:vgg11_bn", 512),
        ("torchvision:resnet18", 512),
        ("torchvision:squeezenet1_1", 512),
        ("torchvision:mobilenet_v3_small", 1024),  # includes the hidden layer of its classifier
        ("torchvision:densenet121", 1024),
        ("torchvision:googlenet", 1024),
        ("timm:vgg11", 512),
        ("timm:tf_efficientnet_lite0", 1280),
        ("timm:vit_tiny_patch16_224", 192),  # position embeddings made for 128 px
    ],
)
def test_a_backbone_gives_one_vector_per_tile(name: str, num_features: int) -> None:
    module, count = build_backbone(name)
    assert count == num_features
    module.eval()
    tiles = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert module(tiles).shape == (2, num_features)


def test_features_of_a_residual_network_are_its_pooled_last_map() -> None:
    module, _ = build_backbone("resnet18")
    module.eval()
    maps: list[torch.Tensor] = []
    module.layer4.register_forward_hook(lambda *args: maps.append(args[2]))
    with torch.no_grad():
        features = module(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(features, maps[0].mean(dim=(2, 3)))


def test_vgg_starts_with_torchvisions_initialisation_and_without_its_classifier() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, _ = build_backbone("vgg16")
    assert sum(p.numel() for p in module.parameters()) == 14_714_688
    convolution = module.features[28]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert not convolution.bias.any()
    assert module.training


def test_an_architecture_that_cannot_take_the_tile_says_so() -> None:
    with pytest.raises(ConfigError, match=r"'maxvit_t' cannot be built for tiles of 128 px .* choose another tile_px"):
        build_backbone("maxvit_t")


def test_auto_normalisation_is_raw_for_the_papers_backbone_only() -> None:
    assert default_normalization("vgg16").std == (1.0, 1.0, 1.0)
    assert default_normalization("resnet18").mean == pytest.approx((123.675, 116.28, 103.53))
    assert default_normalization("timm:tf_efficientnet_lite0").mean == (127.5, 127.5, 127.5)
