# SPDX-License-Identifier: Apache-2.0
"""Anchors, computed once per size of image: fields of view of one size need the same ones in every iteration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

_KEPT = 8


class CachedAnchors(AnchorGenerator):
    """torchvision's anchors with known strides and a small cache.

    Args:
        sizes: Sides of the anchors of each level in pixels.
        ratios: Height over width.
        strides: Stride of each level.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float], *, strides: Sequence[int]) -> None:
        super().__init__(tuple(tuple(s) for s in sizes), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)
        self._cache: dict[tuple[object, ...], torch.Tensor] = {}

    def forward(self, image_list: ImageList, feature_maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """The same (A, 4) anchors for every image of the batch, level by level, as torchvision orders them."""
        return [self.anchors(feature_maps)] * len(image_list.image_sizes)

    def anchors(self, feature_maps: list[torch.Tensor]) -> torch.Tensor:
        """(A, 4) float32 anchors of one image."""
        grids = tuple((int(m.shape[-2]), int(m.shape[-1])) for m in feature_maps)
        device = feature_maps[0].device
        key = (grids, device)
        if key not in self._cache:
            if len(self._cache) >= _KEPT:
                self._cache.clear()
            self.set_cell_anchors(torch.float32, device)
            steps = [[torch.tensor(s, device=device)] * 2 for s in self.strides]
            self._cache[key] = torch.cat(self.grid_anchors([list(g) for g in grids], steps))
        return self._cache[key]
