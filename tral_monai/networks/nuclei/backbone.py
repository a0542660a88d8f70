# SPDX-License-Identifier: Apache-2.0
"""Backbones with a feature pyramid: torchvision's ResNets and MobileNets, and every timm model with feature maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.backbones import build_backbone, resolve_backbone
from tral_monai.networks.weights import load_backbone_weights, plain_state_dict, read_weights, resolve_weights_path

# A side that every stride up to 64 divides.
_PROBE_PX = 128


class FpnBackbone(nn.Module):
    """A convolutional network cut after the coarsest stride asked for, with torchvision's feature pyramid on top.

    Args:
        name: See :func:`tral_monai.networks.backbones.resolve_backbone`.
        strides: Strides of the maps that the pyramid is built on.
        channels: Channels of every level.
        pool_level: Add a coarser level by max pooling.
        pretrained_path: The backbone's weights (see :func:`tral_monai.networks.weights.resolve_weights_path`).
        frozen_batch_norm: Keep batch normalisation as it is. None: where there are pretrained weights, because batches
            of a few images would only spoil its statistics.
        frozen_stages: Freeze everything up to where the maps have stride 2 ** frozen_stages.

    Attributes:
        out_channels: Channels of every level.
        level_names: Names of the levels in the output.
        frozen_batch_norm: Whether batch normalisation is frozen.

    Raises:
        ConfigError: Unknown backbone, or one without maps of these strides.
        CheckpointError: The weights do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        strides: Sequence[int],
        channels: int,
        pool_level: bool,
        pretrained_path: str | os.PathLike[str] | None = None,
        frozen_batch_norm: bool | None = None,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        self.name = resolve_backbone(name)
        body, ends = _build_body(self.name, max(strides), pretrained_path)
        missing = [s for s in strides if s not in ends]
        if missing:
            raise ConfigError(f"backbone {self.name} has feature maps of strides {sorted(ends)}, but not {missing}")
        self.frozen_batch_norm = pretrained_path is not None if frozen_batch_norm is None else bool(frozen_batch_norm)
        _freeze(body, [end for stride, end in ends.items() if stride <= 2**frozen_stages] if frozen_stages else [])
        self._batch_norms = [m for m in body.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if self.frozen_batch_norm:
            for layer in self._batch_norms:
                layer.requires_grad_(False)
        self.body = _Maps(body, ends, strides)
        self.fpn = FeaturePyramidNetwork(
            self.body.channels(), channels, extra_blocks=LastLevelMaxPool() if pool_level else None
        )
        self.out_channels = channels
        self.level_names = [str(stride) for stride in strides] + (["pool"] if pool_level else [])

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pyramid levels, fine to coarse.

        Args:
            image: (B, 3, H, W) float, normalised; H and W multiples of the coarsest stride.
        """
        levels: dict[str, torch.Tensor] = self.fpn(self.body(image))
        return levels

    def train(self, mode: bool = True) -> FpnBackbone:
        """Sets the training mode; frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.frozen_batch_norm:
            for layer in self._batch_norms:
                layer.eval()
        return self


class _Maps(nn.Module):
    """The maps of a network after some of its modules, by stride."""

    def __init__(self, network: nn.Module, ends: dict[int, str], strides: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.every = list(ends)  # timm gives a list in this order
        self.strides = {ends[stride]: stride for stride in strides}

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        if isinstance(self.network, nn.Sequential):
            found, x = {}, image
            for name, layer in self.network.named_children():
                x = layer(x)
                if name in self.strides:
                    found[str(self.strides[name])] = x
            return found
        if isinstance(self.network, IntermediateLayerGetter):
            maps = self.network(image)
            return {str(stride): maps[name] for name, stride in self.strides.items()}
        by_stride = dict(zip(self.every, self.network(image), strict=True))
        return {str(stride): by_stride[stride] for stride in self.strides.values()}

    def channels(self) -> list[int]:
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            found = self(torch.zeros(1, 3, _PROBE_PX, _PROBE_PX))
        self.network.train(training)
        return [int(x.shape[1]) for x in found.values()]


def _build_body(
    name: str, max_stride: int, pretrained_path: str | os.PathLike[str] | None
) -> tuple[nn.Module, dict[int, str]]:
    """A network cut after ``max_stride``, and the module that each stride's map comes out of."""
    library, _, model = name.partition(":")
    if library == "timm":
        return _build_timm(name, model, max_stride, pretrained_path)
    full, _ = build_backbone(name)
    if pretrained_path is not None:
        _load(full, pretrained_path)
    if hasattr(full, "layer4"):  # ResNet, ResNeXt, Wide ResNet
        ends = {2: "relu", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
        ends = {stride: end for stride, end in ends.items() if stride <= max_stride}
        return IntermediateLayerGetter(full, {end: end for end in ends.values()}), ends
    features = getattr(full, "features", None)
    if not isinstance(features, nn.Sequential):
        raise ConfigError(
            f"backbone {name} has no sequence of feature maps that a pyramid can be built on; "
            "choose a ResNet or MobileNet of torchvision, or a timm model"
        )
    last = _last_of_each_stride(features)
    keep = max(index for stride, index in last.items() if stride <= max_stride)
    ends = {stride: str(index) for stride, index in last.items() if stride <= max_stride}
    return features[: keep + 1], ends


def _build_timm(
    name: str, model: str, max_stride: int, pretrained_path: str | os.PathLike[str] | None
) -> tuple[nn.Module, dict[int, str]]:
    import timm

    try:
        full: Any = timm.create_model(model, pretrained=False, features_only=True)
        everything = full.feature_info.reduction()
        wanted = [i for i, stride in enumerate(everything) if stride <= max_stride]
        body: Any = timm.create_model(model, pretrained=False, features_only=True, out_indices=wanted)
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:  # what timm says of models without maps
        raise ConfigError(f"timm gives no feature maps of {name}: {error}; choose another backbone") from error
    if pretrained_path is not None:
        classifier, _ = build_backbone(name)
        _load(classifier, pretrained_path)
        _copy_by_name(classifier, body, name)
    info = body.feature_info
    modules = dict(body.named_modules())
    ends: dict[int, str] = {}
    for stride, end in zip(info.reduction(), info.module_name(), strict=True):
        ends[int(stride)] = end if end in modules else end.replace(".", "_")
    _cut_after(body, list(ends.values())[-1])
    return body, ends


def _cut_after(body: nn.Module, end: str) -> None:
    """Drop the stages after the last one that is used; timm's EfficientNets and MobileNets would still run them."""
    parent, _, index = end.rpartition(".")
    stages = dict(body.named_modules()).get(parent)
    if parent and index.isdigit() and isinstance(stages, nn.Sequential):
        del stages[int(index) + 1 :]


def _copy_by_name(full: nn.Module, body: nn.Module, name: str) -> None:
    """timm's feature extractors rename ``stages.0`` to ``stages_0`` or put ``model.`` before it."""
    source = {key.replace("_", "."): value for key, value in full.state_dict().items()}
    target = body.state_dict()
    state = {key: source.get(key.removeprefix("model.").replace("_", ".")) for key in target}
    lost = [key for key, value in state.items() if value is None or value.shape != target[key].shape]
    if lost:
        raise CheckpointError(
            f"{len(lost)} weights of {name} have no counterpart in its feature extractor, such as {lost[0]}; "
            "choose another backbone"
        )
    body.load_state_dict({key: value for key, value in state.items() if value is not None})


def _load(network: nn.Module, location: str | os.PathLike[str]) -> None:
    path = resolve_weights_path(location)
    load_backbone_weights(network, plain_state_dict(read_weights(path), path), path=path)


def _last_of_each_stride(features: nn.Sequential) -> dict[int, int]:
    """Index of the last layer whose output has each stride."""
    last: dict[int, int] = {}
    training = features.training
    features.eval()
    with torch.no_grad():
        x = torch.zeros(1, 3, _PROBE_PX, _PROBE_PX)
        for index, layer in enumerate(features):
            x = layer(x)
            last[_PROBE_PX // x.shape[-1]] = index
    features.train(training)
    return last


def _freeze(network: nn.Module, ends: Sequence[str]) -> None:
    """Freeze the parameters of all modules up to the last one of ``ends``, in the order of registration."""
    if not ends:
        return
    names = [name for name, _ in network.named_modules()]
    stop = max(i for i, name in enumerate(names) if any(name == end or name.startswith(end + ".") for end in ends))
    for _, module in list(network.named_modules())[: stop + 1]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
