# SPDX-License-Identifier: Apache-2.0
"""Convolutional (or transformer) feature extractors by name: an RGB tile in, one pooled feature vector out."""

from __future__ import annotations

import difflib
import functools
import warnings
from typing import Any

import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.networks.normalization import PRESETS, Normalization

# What timm and torchvision call the side of the image that a transformer's position embeddings are made for.
_SIZE_ARGUMENTS = ("img_size", "image_size")


def resolve_backbone(name: str) -> str:
    """Gives a backbone its full name, so that a checkpoint never depends on which library was looked into first.

    Args:
        name: ``torchvision:NAME``, ``timm:NAME`` or a bare name. A bare name means torchvision's classifier of that
            name if there is one, else timm's.

    Returns:
        ``torchvision:NAME`` or ``timm:NAME``.

    Raises:
        ConfigError: No such backbone; the message lists the nearest names.
    """
    library, _, model = name.rpartition(":")
    if library not in ("", "torchvision", "timm"):
        raise ConfigError(f"a backbone is torchvision:NAME, timm:NAME or NAME, but is {name!r}")
    known: list[str] = []
    for candidate in [library] if library else ["torchvision", "timm"]:
        names = _names(candidate)
        if model in names:
            return f"{candidate}:{model}"
        known += names
    close = difflib.get_close_matches(model, known, n=5, cutoff=0.5)
    hint = f"; near it: {', '.join(close)}" if close else "; timm.list_models() and torchvision's docs list them"
    raise ConfigError(f"unknown backbone {name!r} in {library or 'torchvision and timm'}{hint}")


def build_backbone(name: str, *, tile_px: int = 128) -> tuple[nn.Module, int]:
    """Builds a feature extractor with random weights; nothing is ever downloaded.

    The classifier is cut off. What is left ends in the network's own global pooling; VGG and AlexNet, whose
    classifiers read a 7 x 7 map, get a global average pool instead (512 and 256 features), as TRI-CNN has it.

    Args:
        name: See :func:`resolve_backbone`.
        tile_px: Side of a tile in pixels; transformers with fixed position embeddings are built for it.

    Returns:
        The module, (B, 3, tile_px, tile_px) float to (B, F) float, and F.

    Raises:
        ConfigError: Unknown name, or the architecture cannot take tiles of this size.
    """
    library, _, model_name = resolve_backbone(name).partition(":")
    build = _build_timm if library == "timm" else _build_torchvision
    first_error: Exception | None = None
    for extra in ({}, *({argument: tile_px} for argument in _SIZE_ARGUMENTS)):
        try:
            module = build(model_name, **extra)
            return module, _feature_count(module, tile_px)
        except Exception as error:  # each library has its own way of refusing a size; all of them are reported below
            first_error = first_error or error
    raise ConfigError(
        f"backbone {name!r} cannot be built for tiles of {tile_px} px ({type(first_error).__name__}: {first_error}); "
        "choose another tile_px or another backbone"
    ) from first_error


def default_normalization(name: str) -> Normalization:
    """The normalisation that ``"auto"`` stands for.

    VGG16 from torchvision is TRI-CNN's backbone and gets raw RGB 0 to 255, as in the authors' code. Every other
    torchvision model gets ImageNet's mean and standard deviation, every timm model the ones in its configuration.

    Args:
        name: See :func:`resolve_backbone`.
    """
    full = resolve_backbone(name)
    if full == "torchvision:vgg16":
        return PRESETS["raw255"]
    if full.startswith("torchvision:"):
        return PRESETS["imagenet"]
    import timm

    config: Any = timm.get_pretrained_cfg(full.partition(":")[2], allow_unregistered=True)
    return PRESETS["imagenet"] if config is None else Normalization.from_unit_range(config.mean, config.std)


@functools.cache  # timm takes 40 ms to list its models
def _names(library: str) -> tuple[str, ...]:
    if library == "timm":
        import timm

        return tuple(str(n) for n in timm.list_models())
    import torchvision

    return tuple(str(n) for n in torchvision.models.list_models(module=torchvision.models))


def _build_timm(model_name: str, **extra: Any) -> nn.Module:
    import timm

    module: nn.Module = timm.create_model(model_name, pretrained=False, num_classes=0, **extra)
    if model_name.startswith("vgg"):
        module.pre_logits = nn.Identity()
    return module


def _build_torchvision(model_name: str, **extra: Any) -> nn.Module:
    import torchvision

    if model_name.startswith("vgg"):
        return _build_vgg(model_name)
    if model_name in ("googlenet", "inception_v3"):
        extra |= {"aux_logits": False, "init_weights": True}
    module: nn.Module = torchvision.models.get_model(model_name, weights=None, **extra)
    if model_name == "alexnet":
        module.avgpool, module.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
    elif model_name.startswith("squeezenet"):
        module.classifier = nn.AdaptiveAvgPool2d(1)
    else:
        last = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)][-1]
        parent, _, leaf = last.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Identity())
    return module


def _build_vgg(model_name: str) -> nn.Module:
    """VGG without its 124 million classifier weights, which would only be made to be thrown away."""
    import torchvision

    with torch.device("meta"):
        module: nn.Module = torchvision.models.get_model(model_name, weights=None)
    module.avgpool, module.classifier = nn.AdaptiveAvgPool2d(1), nn.Identity()
    module.to_empty(device="cpu")
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):  # torchvision's own initialisation of VGG
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
    return module


def _feature_count(module: nn.Module, tile_px: int) -> int:
    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        features = module(torch.zeros(1, 3, tile_px, tile_px))
    module.train()
    if not isinstance(features, torch.Tensor) or features.dim() != 2:
        raise TypeError(f"it does not give one vector per tile but {getattr(features, 'shape', type(features))}")
    return int(features.shape[1])
