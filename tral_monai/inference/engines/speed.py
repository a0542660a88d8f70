# SPDX-License-Identifier: Apache-2.0
"""How fast an engine runs a small convolutional network with random weights: an idea of what a machine can do."""

from __future__ import annotations

import time

import torch
from torch import nn

from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.settings import EngineName, EngineSettings, Precision
from tral_monai.networks.seeding import seeded

_BATCH = 8
_TILE_PX = 64
_SECONDS = 1.0


def small_network_speed(name: EngineName, precision: Precision, *, device: torch.device | str = "cpu") -> float:
    """Measure an engine.

    Args:
        name: the engine.
        precision: its precision.
        device: where to run.

    Returns:
        Tiles of 64 px per second of wall time.

    Raises:
        ConfigError: the engine does not run here.
        MissingExtraError: a package is missing.
    """
    network = _small_network().eval().to(device)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(_BATCH, 3, _TILE_PX, _TILE_PX, generator=generator).to(device)
    run = compile_module(network, batch, EngineSettings(name, precision), device=device)
    run(batch)
    calls, start = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - start < _SECONDS:
        run(batch)[0].cpu()  # a GPU is done when its outputs are here
        calls += 1
    return calls * _BATCH / (time.perf_counter() - start)


def _small_network() -> nn.Module:
    """Six convolutions of the widths that VGG16 has in the middle."""
    layers: list[nn.Module] = []
    with seeded(0):
        for inputs, outputs in ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            if inputs == outputs:
                layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 6))
