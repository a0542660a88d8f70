# SPDX-License-Identifier: Apache-2.0
"""What every transform of this room takes and gives: a batch of RGB tiles or tile triplets on any device."""

from __future__ import annotations

from typing import Protocol

import torch

from tral_monai.errors import ConfigError


class BatchTransform(Protocol):
    """A callable on a whole batch; it keeps shape, dtype, range and device.

    Random transforms draw everything from ``generator``, a CPU generator whatever the batch's device, so that a seed
    gives the same augmentation on every machine. Deterministic ones ignore it.
    """

    def __call__(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Transforms (B, 3 * scales, H, W) RGB, uint8 or float on the scale 0 to 255."""
        ...


def checked_batch(image: torch.Tensor) -> torch.Tensor:
    """Passes on a batch that transforms can work on.

    Args:
        image: (B, 3 * scales, H, W), uint8 or floating point.

    Raises:
        ConfigError: Another shape or dtype.
    """
    if image.dim() != 4 or image.shape[1] == 0 or image.shape[1] % 3:
        raise ConfigError(f"expected (B, 3 * scales, H, W) RGB, but got {list(image.shape)}")
    if image.dtype != torch.uint8 and not image.dtype.is_floating_point:
        raise ConfigError(f"expected RGB as uint8 or float on the scale 0 to 255, but got {image.dtype}")
    return image


def rgb_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Brings computed grey levels back to the range and dtype of a batch; rounds where it is uint8."""
    values = values.clamp(0.0, 255.0)
    return (values.round() if like.dtype == torch.uint8 else values).to(like.dtype)


def required_generator(generator: torch.Generator | None, transform: object) -> torch.Generator:
    """Passes on the generator of a random transform.

    Args:
        generator: What the caller gave.
        transform: The transform, for the message.

    Raises:
        ConfigError: None was given, or it is not on the CPU.
    """
    name = type(transform).__name__
    if generator is None:
        raise ConfigError(f"{name} is random: call it with a torch.Generator, as AugmentedPrepareBatch does")
    if generator.device.type != "cpu":
        raise ConfigError(f"{name} draws on the CPU, so that a seed means the same everywhere; got {generator.device}")
    return generator
