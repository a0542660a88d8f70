# SPDX-License-Identifier: Apache-2.0
"""The loss prediction module of LL4AL: from the feature pyramid to how large the detection loss of an image is."""

from __future__ import annotations

import torch
from torch import nn


class LossPrediction(nn.Module):
    """Per level global average pool, a fully connected layer and ReLU; side by side, one more layer to one number.

    Yoo & Kweon, CVPR 2019, Sec. 3.2.

    Args:
        channels: Channels of each level.
        levels: Number of levels.
        width: Units per level; 128 is the paper's.
    """

    def __init__(self, channels: int, levels: int, *, width: int = 128) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(channels, width) for _ in range(levels))
        self.output = nn.Linear(width * levels, 1)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(n,) predicted losses of n images from (n, levels, channels) pooled levels."""
        parts = [torch.relu(branch(pooled[:, level])) for level, branch in enumerate(self.branches)]
        return self.output(torch.cat(parts, dim=1)).squeeze(1).float()
