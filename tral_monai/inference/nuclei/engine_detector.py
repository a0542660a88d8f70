# SPDX-License-Identifier: Apache-2.0
"""A detector whose backbone and feature pyramid run in an engine; proposals, RoI heads and NMS stay torch in fp32."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.inference.engines.compile_module import CompiledModule, compile_module
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.networks.nuclei.backbone import FpnBackbone
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

_KEPT = 4  # sizes of images that are kept compiled


def engine_detector(
    network: OpenSetRCNN,
    settings: EngineSettings,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 8,
) -> OpenSetRCNN:
    """Copy a detector so that its backbone runs in an engine.

    Args:
        network: the detector; it stays as it is and shares its backbone's weights with the copy.
        settings: the engine.
        device: where the copy runs; by default where the network is.
        batch_size: images per forward pass at most; the engine is made for so many, because the first batch may be
            smaller.

    Returns:
        A detector in evaluation mode that :func:`tral_monai.networks.nuclei.detect.detect` takes, with the same
        contract and weights; the network itself for the reference engine where it is on the device already. The
        backbone is compiled at the first batch, and again for images of another size. It cannot be trained.

    Raises:
        ConfigError: the network is another one, or the size of batches is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, but is {batch_size!r}")
    if not isinstance(network, OpenSetRCNN):
        raise ConfigError(f"engine_detector takes an OpenSetRCNN, but got a {type(network).__name__}")
    target = network.device if device is None else torch.device(device)
    if target.type != network.device.type:
        network = copy.deepcopy(network).to(target)
    if settings.is_reference:
        return network
    backbone = EngineBackbone.of(network.backbone, settings, batch_size=batch_size)
    fast = copy.deepcopy(network, {id(network.backbone): backbone})
    return fast.eval()


class EngineBackbone(FpnBackbone):
    """A backbone that answers through an engine. It has the attributes and weights of the one it was made of."""

    _settings: EngineSettings
    _batch_size: int
    _levels: list[nn.Module]
    _compiled: OrderedDict[tuple[int, int], CompiledModule]

    @classmethod
    def of(cls, backbone: FpnBackbone, settings: EngineSettings, *, batch_size: int) -> EngineBackbone:
        """Make one.

        Args:
            backbone: a detector's backbone; its weights are shared, not copied.
            settings: the engine.
            batch_size: images per forward pass at most.
        """
        made = cls.__new__(cls)
        made.__dict__ = dict(backbone.__dict__)
        made._settings, made._batch_size = settings, batch_size
        levels = _Levels(backbone)
        # In a list, so that it is no submodule: the weights would be listed twice.
        made._levels, made._compiled = [levels], OrderedDict()
        return made

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """See :meth:`FpnBackbone.forward`; the levels are float32."""
        if self.training:
            raise ConfigError("a detector in an engine cannot be trained; train the one that it was made of")
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if size not in self._compiled:
            if len(self._compiled) >= _KEPT:
                self._compiled.popitem(last=False)
            levels = copy.deepcopy(self._levels[0]).eval()
            self._compiled[size] = compile_module(
                levels, image, self._settings, device=image.device, batch_size=self._batch_size
            )
        self._compiled.move_to_end(size)
        return dict(zip(self.level_names, self._compiled[size](image), strict=True))

    def train(self, mode: bool = True) -> EngineBackbone:
        """Sets its own mode; the weights belong to another network, which stays in its mode."""
        self.training = mode
        return self


class _Levels(nn.Module):
    """The pyramid's levels as a tuple, which is what engines give."""

    def __init__(self, backbone: FpnBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.backbone(image).values())
