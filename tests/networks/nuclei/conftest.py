# SPDX-License-Identifier: Apache-2.0
"""A detector small enough to be built and run in milliseconds, and fields with squares for nuclei."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

Build = Callable[..., OpenSetRCNN]
Field = tuple[torch.Tensor, dict[str, torch.Tensor]]


@pytest.fixture
def build() -> Build:
    def make(**changes: object) -> OpenSetRCNN:
        settings: dict[str, object] = {
            "classes": ("dark", "red"),
            "backbone": "torchvision:resnet18",
            "strides": (4, 8),
            "pool_level": False,
            "fpn_channels": 16,
            "anchor_sizes_px": [[12.0], [20.0]],
            "anchor_ratios": (1.0,),
            "rpn_samples": 32,
            "rpn_candidates": (50, 40),
            "proposals": (40, 30),
            "roi_size": 3,
            "roi_samples": 16,
            "representation": 24,
            "projection": 8,
            "seed": 3,
        }
        return OpenSetRCNN(**(settings | changes))  # type: ignore[arg-type]

    return make


def squares(seed: int, *, labels: tuple[int, ...] = (1, 2), side: int = 64) -> Field:
    """A light field with one 14 px square per label: 1 dark, 2 red, anything else green."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((3, side, side), 220, dtype=torch.uint8)
    boxes = torch.zeros(len(labels), 4)
    colors = {1: (40, 40, 60), 2: (200, 20, 20)}
    corners = [(x, y) for x in range(2, side - 16, 20) for y in range(2, side - 16, 20)]
    order = torch.randperm(len(corners), generator=generator).tolist()
    for row, label in enumerate(labels):
        x, y = corners[order[row]]
        image[:, y : y + 14, x : x + 14] = torch.tensor(colors.get(label, (20, 160, 40)), dtype=torch.uint8)[
            :, None, None
        ]
        boxes[row] = torch.tensor([x, y, x + 14, y + 14])
    return image, {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64).clamp(max=2)}


@pytest.fixture
def field() -> Callable[..., Field]:
    return squares
