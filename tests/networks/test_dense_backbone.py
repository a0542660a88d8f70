# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.networks.backbones import build_backbone
from tral_monai.networks.dense_backbone import build_dense_backbone


# By hand. VGG16: 3 x 3 layers add 2 px times the stride, poolings add 1 times the stride and double it:
# 5 | 6, 14 | 16, 40 | 44, 92 | 100, 196. VGG19 has a fourth layer in blocks 3 to 5: ... 14 | 16, 48 | 52, 116.
# Lite0: stem 3, then stages of kernels 3, (3, 3), (5, 5), (3, 3, 3) with strides 1, 2, 2, 2: 7, 19, 67, 147.
@pytest.mark.parametrize(
    ("name", "tile_px", "stride", "field", "features", "cells"),
    [
        ("vgg16", 128, 8, 92, 512, 5),
        ("vgg16_bn", 128, 8, 92, 512, 5),
        ("vgg19", 128, 8, 116, 512, 2),
        ("vgg16", 91, 4, 40, 256, 13),
        ("vgg16", 256, 16, 196, 512, 4),
        ("timm:tf_efficientnet_lite0", 128, 8, 67, 240, 8),
        ("timm:efficientnet_lite0", 160, 16, 147, 480, 1),
    ],
)
def test_it_is_cut_where_a_cell_sees_no_more_than_a_tile(
    name: str, tile_px: int, stride: int, field: int, features: int, cells: int
) -> None:
    backbone = build_dense_backbone(name, tile_px=tile_px).eval()
    assert (backbone.stride_px, backbone.receptive_field_px, backbone.num_features) == (stride, field, features)
    assert backbone.cells(tile_px) == cells
    with torch.no_grad():
        assert backbone.feature_map(torch.zeros(1, 3, tile_px, tile_px)).shape == (1, features, cells, cells)
        assert backbone.feature_map(torch.zeros(1, 3, field, field)).shape == (1, features, 1, 1)
        assert backbone(torch.zeros(2, 3, tile_px, tile_px)).shape == (2, features)


@pytest.mark.parametrize("name", ["vgg16", "timm:tf_efficientnet_lite0"])
def test_a_cell_sees_its_receptive_field_and_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_dense_backbone(name).eval()
    for module in backbone.modules():  # activations that never saturate, and no maximum: every path carries a gradient
        if isinstance(module, nn.MaxPool2d):
            module.forward = lambda x: nn.functional.avg_pool2d(x, 2)  # type: ignore[method-assign]
        elif isinstance(module, nn.ReLU | nn.ReLU6):
            module.forward = lambda x: x  # type: ignore[method-assign]
        elif isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
    image = torch.rand(1, 3, 160, 160, requires_grad=True)
    backbone.feature_map(image)[0, 0, 1, 3].backward()
    assert image.grad is not None
    seen = torch.nonzero(image.grad.abs().sum(dim=(0, 1)))
    stride, field = backbone.stride_px, backbone.receptive_field_px
    assert seen.amin(dim=0).tolist() == [stride, 3 * stride]
    assert seen.amax(dim=0).tolist() == [stride + field - 1, 3 * stride + field - 1]


def test_vgg_computes_the_first_layers_of_the_whole_network_without_padding() -> None:
    whole, _ = build_backbone("vgg16")
    dense = build_dense_backbone("vgg16")
    dense.load_state_dict({name: whole.state_dict()[name] for name in dense.state_dict()})
    image = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    # Padding of 1 px at strides 1, 1, 2, 2, 4, 4, 4, 8, 8, 8 moves the whole network's cells by 42 px: its cell i is at
    # px 8 i - 42. The picture is moved by 2 px, so that our cell i is at px 8 i - 2, where its cell i + 5 is.
    moved = nn.functional.pad(image, (2, 0, 2, 0))
    with torch.no_grad():
        padded = whole.features[:23](image)  # through conv4_3 and its activation
        torch.testing.assert_close(dense.feature_map(moved)[..., 1:26, 1:26], padded[..., 6:31, 6:31])


@torch.no_grad()
def test_efficientnet_computes_the_first_stages_of_the_whole_network_without_padding() -> None:
    whole, _ = build_backbone("timm:efficientnet_lite0")
    dense = build_dense_backbone("timm:efficientnet_lite0").eval()
    dense.load_state_dict({name: whole.state_dict()[name] for name in dense.state_dict()})
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    whole.eval()
    x = whole.blocks[:3](whole.bn1(whole.conv_stem(image)))
    padded = whole.blocks[3][0].bn1(whole.blocks[3][0].conv_pw(x))
    # Symmetric padding of 1, 1, 1, 1, 2, 2 px at strides 1, 2, 2, 4, 4, 8 (stem, stages 0 to 2) moves the whole
    # network's cells by 1 + 2 + 2 + 4 + 8 + 16 = 33 px: its cell i is at px 8 i - 33. The picture is moved by 1 px, so
    # that our cell i is at px 8 i - 1, where its cell i + 4 is.
    moved = nn.functional.pad(image, (1, 0, 1, 0))
    torch.testing.assert_close(dense.feature_map(moved)[..., 1:20, 1:20], padded[..., 5:24, 5:24])


def test_names_are_those_of_the_whole_backbone() -> None:
    for name in ("vgg11_bn", "timm:tf_efficientnet_lite0"):
        whole = build_backbone(name)[0].state_dict()
        dense = build_dense_backbone(name).state_dict()
        assert all(dense[key].shape == whole[key].shape for key in dense)
        assert len(dense) < len(whole)


def test_other_backbones_are_refused_with_those_that_can() -> None:
    for name in ("resnet18", "timm:vgg16", "timm:efficientnet_b0", "vit_b_16"):
        with pytest.raises(ConfigError, match=r"vgg11, vgg13, vgg16 and vgg19 .*tf_efficientnet_lite0 to 4, but the"):
            build_dense_backbone(name)


@pytest.mark.parametrize(
    ("name", "tile_px", "needed"), [("vgg16", 4, 5), ("timm:tf_efficientnet_lite0", 6, 7)], ids=["vgg", "lite"]
)
def test_tiles_may_be_too_small(name: str, tile_px: int, needed: int) -> None:
    message = f"needs tiles of at least {needed} px with .* but tile_px is {tile_px}"
    with pytest.raises(ConfigError, match=rf"{message}|cannot be built for tiles of {tile_px} px"):
        build_dense_backbone(name, tile_px=tile_px)
