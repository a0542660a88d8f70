# SPDX-License-Identifier: Apache-2.0
"""Tiles of known stains, made from Beer-Lambert's law."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def stained_tiles(
    vectors: Sequence[Sequence[float]],
    count: int = 2,
    *,
    scales: int = 3,
    size: int = 64,
    strength: Sequence[float] = (1.5, 0.8),
    glass: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """uint8 (count, 3 * scales, size, size): every pixel holds a random mixture of both stains, some of it pure."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.tensor(vectors)
    columns = columns / columns.norm(dim=0)
    shape = (count, scales, 2, size, size)
    amounts = (0.3 + 0.7 * torch.rand(shape, generator=generator)) * torch.tensor(strength).view(1, 1, 2, 1, 1)
    pure = torch.rand((count, scales, 1, size, size), generator=generator)
    amounts[:, :, :1] *= pure > 0.1  # a tenth is eosin alone
    amounts[:, :, 1:] *= (pure < 0.9) | (pure < 0.1)  # and a tenth hematoxylin alone
    amounts *= torch.rand((count, scales, 1, size, size), generator=generator) >= glass
    density = torch.einsum("rs,bkshw->bkrhw", columns, amounts)
    return (240.0 * torch.exp(-density)).round().to(torch.uint8).flatten(1, 2)
