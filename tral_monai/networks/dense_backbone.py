# SPDX-License-Identifier: Apache-2.0
"""Feature extractors without padding, whose features of many overlapping tiles can be computed at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.networks.backbones import build_backbone, resolve_backbone

_VGG = re.compile(r"torchvision:vgg(11|13|16|19)(_bn)?")
_EFFICIENTNET_LITE = re.compile(r"timm:(tf_)?efficientnet_lite[0-4]")


class DenseBackbone(nn.Module):
    """A backbone cut off where one output cell still sees less than a tile, with every convolution 'valid'.

    Cell (i, j) of the feature map sees the pixels from ``stride_px * i`` on, ``receptive_field_px`` of them, per axis,
    and nothing else: no zero padding. So the cells inside of a tile are the same whether the tile or a picture around
    it is computed. A tile's features are the mean over its cells.

    Names of parameters are those of the whole backbone, so that its pretrained weights fit.

    Attributes:
        stride_px: Distance of neighbouring cells in pixels of the input.
        receptive_field_px: Side of what a cell sees, in pixels of the input.
        num_features: F.
    """

    def __init__(self, *, stride_px: int, receptive_field_px: int, num_features: int) -> None:
        super().__init__()
        self.stride_px = stride_px
        self.receptive_field_px = receptive_field_px
        self.num_features = num_features

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        """Features of every cell.

        Args:
            image: (B, 3, H, W) normalised, H and W at least ``receptive_field_px``.

        Returns:
            (B, F, h, w) with ``h = (H - receptive_field_px) // stride_px + 1``.
        """
        raise NotImplementedError

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features of tiles: (B, 3, tile_px, tile_px) normalised to (B, F)."""
        return self.feature_map(image).mean(dim=(2, 3))

    def cells(self, side_px: int) -> int:
        """Number of cells along a side of so many pixels."""
        return (side_px - self.receptive_field_px) // self.stride_px + 1


class DenseVGG(DenseBackbone):
    """torchvision's VGG up to a block's last activation, before its pooling: through conv4_3 of VGG16 at 128 px.

    Args:
        whole: The VGG whose layers are taken.
        tile_px: Side of a tile; the deepest block whose receptive field fits in it is the last.

    Raises:
        ConfigError: Not even the first block fits.
    """

    def __init__(self, whole: nn.Module, tile_px: int) -> None:
        layers: list[nn.Module] = []
        field, stride, width = 1, 1, 0
        best: tuple[int, int, int, int] | None = None  # layers, stride, receptive field, features
        smallest = 0
        for layer in whole.get_submodule("features").children():
            if isinstance(layer, nn.MaxPool2d):
                smallest = smallest or field
                if field <= tile_px:
                    best = (len(layers), stride, field, width)
                field, stride = field + stride, 2 * stride  # 2 x 2, step 2
            elif isinstance(layer, nn.Conv2d):
                field += 2 * stride  # 3 x 3
                width = layer.out_channels
            layers.append(_valid(layer) if isinstance(layer, nn.Conv2d) else layer)
        if best is None:
            raise _tile_too_small("VGG", smallest, tile_px)
        count, stride, field, width = best
        super().__init__(stride_px=stride, receptive_field_px=field, num_features=width)
        self.features = nn.Sequential(*layers[:count])

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        """See :meth:`DenseBackbone.feature_map`."""
        features: torch.Tensor = self.features(image)
        return features


class DenseEfficientNetLite(DenseBackbone):
    """timm's EfficientNet-Lite up to a whole stage and the widening 1 x 1 convolution that follows it.

    A stage of inverted residuals ends in a narrow layer without activation; the next block's first layer widens it
    (40 to 240 features at Lite0's stride 8) and sees no further, so it is where the features are taken, as detectors on
    such networks do (SSD on MobileNetV2: https://arxiv.org/abs/1801.04381, section 6.2).

    Args:
        whole: The network whose layers are taken.
        tile_px: Side of a tile; the deepest stage whose receptive field fits in it is the last.

    Raises:
        ConfigError: Not even the first stage fits.
    """

    def __init__(self, whole: nn.Module, tile_px: int) -> None:
        stages: list[nn.Sequential] = [*whole.get_submodule("blocks").children()]  # type: ignore[list-item]
        field, stride = _grown(1, 1, [whole.get_submodule("conv_stem")])
        best: tuple[int, int, int] | None = None  # stages, stride, receptive field
        smallest = 0
        for count, stage in enumerate(stages[:-1], start=1):
            field, stride = _grown(field, stride, (m for m in stage.modules() if isinstance(m, nn.Conv2d)))
            smallest = smallest or field
            if field <= tile_px:
                best = (count, stride, field)
        if best is None:
            raise _tile_too_small("EfficientNet-Lite", smallest, tile_px)
        count, stride, field = best
        widening: Any = stages[count][0]
        width = int(widening.conv_pw.out_channels)
        super().__init__(stride_px=stride, receptive_field_px=field, num_features=width)
        self.conv_stem = _valid(whole.get_submodule("conv_stem"))
        self.bn1 = whole.get_submodule("bn1")
        kept = [nn.Sequential(*(_valid_block(block) for block in stage)) for stage in stages[:count]]
        self.blocks = nn.Sequential(*kept, nn.Sequential(_Widening(widening)))

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        """See :meth:`DenseBackbone.feature_map`."""
        features: torch.Tensor = self.blocks(self.bn1(self.conv_stem(image)))
        return features


def build_dense_backbone(name: str, *, tile_px: int = 128) -> DenseBackbone:
    """Builds a feature extractor for dense context with random weights.

    Args:
        name: ``torchvision:vgg11``, ``vgg13``, ``vgg16``, ``vgg19``, these with ``_bn``, or timm's
            ``tf_efficientnet_lite0`` to ``4`` (without ``tf_`` as well).
        tile_px: Side of a tile in pixels.

    Raises:
        ConfigError: Another backbone, or a tile that is smaller than what one cell of its first stage sees.
    """
    full = resolve_backbone(name)
    if not _VGG.fullmatch(full) and not _EFFICIENTNET_LITE.fullmatch(full):
        raise ConfigError(
            "context='dense' needs a backbone that can do without padding: torchvision's vgg11, vgg13, vgg16 and vgg19 "
            f"(also _bn) or timm's tf_efficientnet_lite0 to 4, but the backbone is {full!r}; choose one of these, or "
            "context='tile'"
        )
    whole, _ = build_backbone(full, tile_px=tile_px)
    return DenseVGG(whole, tile_px) if _VGG.fullmatch(full) else DenseEfficientNetLite(whole, tile_px)


class _ValidDepthwise(nn.Module):
    """timm's ``DepthwiseSeparableConv`` without padding; what is added is cut to the size that is left."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _valid(block.conv_dw), block.bn1
        self.conv_pw, self.bn2 = _valid(block.conv_pw), block.bn2
        self.margin = self.conv_dw.kernel_size[0] // 2
        self.residual = bool(block.has_skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))
        return y + _without_margin(x, self.margin) if self.residual else y


class _ValidInvertedResidual(nn.Module):
    """timm's ``InvertedResidual`` without padding; what is added is cut to the size that is left."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv_pw, self.bn1 = _valid(block.conv_pw), block.bn1
        self.conv_dw, self.bn2 = _valid(block.conv_dw), block.bn2
        self.conv_pwl, self.bn3 = _valid(block.conv_pwl), block.bn3
        self.margin = self.conv_dw.kernel_size[0] // 2
        self.residual = bool(block.has_skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        y = self.bn3(self.conv_pwl(y))
        return y + _without_margin(x, self.margin) if self.residual else y


class _Widening(nn.Module):
    """The first layer of an inverted residual alone."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv_pw, self.bn1 = _valid(block.conv_pw), block.bn1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn1(self.conv_pw(x))
        return y


def _without_margin(x: torch.Tensor, margin: int) -> torch.Tensor:
    return x[:, :, margin : x.shape[2] - margin, margin : x.shape[3] - margin]


def _valid_block(block: Any) -> nn.Module:
    return _ValidInvertedResidual(block) if hasattr(block, "conv_pwl") else _ValidDepthwise(block)


def _valid(conv: Any) -> nn.Conv2d:
    """The same convolution with the same parameters, without padding; timm's 'same' layers are of another class."""
    new = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    new.weight, new.bias = conv.weight, conv.bias
    return new


def _grown(field: int, stride: int, convolutions: Iterable[Any]) -> tuple[int, int]:
    """Receptive field and stride after these layers."""
    for conv in convolutions:
        field += (conv.kernel_size[0] - 1) * stride
        stride *= conv.stride[0]
    return field, stride


def _tile_too_small(what: str, needed: int, tile_px: int) -> ConfigError:
    return ConfigError(
        f"context='dense' needs tiles of at least {needed} px with {what}, whose first stage sees so much at once, but "
        f"tile_px is {tile_px}; choose larger tiles or context='tile'"
    )
