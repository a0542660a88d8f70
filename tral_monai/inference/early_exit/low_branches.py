# SPDX-License-Identifier: Apache-2.0
"""Which branches of a TriCNN are the cheap ones, and how branches run without the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tral_monai.errors import ConfigError
from tral_monai.networks.tri_cnn import TriCNN


def low_scales(network: TriCNN) -> tuple[int, ...]:
    """Positions of all magnifications but the highest, in the network's order.

    Raises:
        ConfigError: the network has one magnification only, or normalises stain over all of them.
    """
    if network.num_scales < 2:
        raise ConfigError(
            f"early exit needs a network with several magnifications, but this one has {network.magnifications}"
        )
    if network.stain_normalization:
        raise ConfigError(
            "early exit does not go with stain_normalization, which looks at all magnifications of a tile at once; "
            "leave early_exit out"
        )
    return tuple(scale for scale in range(network.num_scales) if scale != network.highest_scale)


def low_feature_columns(network: TriCNN) -> torch.Tensor:
    """Positions (int64) of the low magnifications' features in what ``network.features`` returns."""
    columns = torch.arange(network.num_features).split(list(network.branch_widths))
    return torch.cat([columns[scale] for scale in low_scales(network)])


class Branches(torch.nn.Module):
    """Some branches of a TriCNN by themselves, with its normalisation.

    It costs nothing to make, and is to be made where it is used: a network that is moved to another device or type
    gets new buffers for its normalisation, which what was made of it earlier does not see.

    Args:
        network: its branches are used, not copied.
        scales: positions of the magnifications.
    """

    def __init__(self, network: TriCNN, scales: Sequence[int]) -> None:
        super().__init__()
        self.branches = torch.nn.ModuleList(network.branches[0 if network.share_weights else s] for s in scales)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", network.mean)
        self.register_buffer("std", network.std)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3 * scales, h, w) uint8 or float, 0 to 255 -> (B, F of a scale) float for each scale."""
        normalised = [(rgb.to(self.mean.dtype) - self.mean) / self.std for rgb in tiles.split(3, dim=1)]
        return tuple(branch(rgb) for branch, rgb in zip(self.branches, normalised, strict=True))
