# SPDX-License-Identifier: Apache-2.0
"""The classifier on top of the branches' pooled features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class FeatureNorm(nn.BatchNorm1d):
    """Standardises features by their mean and variance in the batch; a batch of one takes the running ones.

    The last batch of an epoch may well hold one sample, which has no variance.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Standardise (B, F) features."""
        # Written out, because TorchScript does not know super().
        by_batch = self.training and input.shape[0] > 1
        if by_batch and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum
        assert momentum is not None
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, None, None, by_batch, momentum, self.eps
        )


class BranchDropout(nn.Module):
    """In training, drops all features of a magnification at once, so that the classifier cannot lean on one alone.

    A 2.5x tile covers 2 mm of tissue: on few slides its features tell *where* a tile lies, which predicts its class
    there and nowhere else. At least one magnification of each sample is kept, and the kept ones are scaled up.

    Args:
        widths: number of features of each magnification, which lie side by side.
        p: chance of dropping each.
    """

    def __init__(self, widths: Sequence[int], p: float) -> None:
        super().__init__()
        self.branches, self.p = len(widths), p
        self.widths = [int(width) for width in widths]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Drop branches of (B, F) features."""
        if not self.training or self.p == 0.0:
            return features
        n = features.shape[0]
        keep = (torch.rand(n, self.branches, 1, device=features.device) >= self.p).to(features.dtype)
        none_kept = keep.sum(dim=1, keepdim=True) == 0
        keep = torch.where(none_kept, torch.ones_like(keep), keep)
        keep = keep * (self.branches / keep.sum(dim=1, keepdim=True))
        parts = features.split(self.widths, dim=1)
        return torch.cat([part * keep[:, i] for i, part in enumerate(parts)], dim=1)

    def extra_repr(self) -> str:
        """Shown by ``print(network)``."""
        return f"widths={self.widths}, p={self.p}"


def build_head(
    widths: Sequence[int],
    hidden: Sequence[int],
    num_classes: int,
    *,
    dropout: float,
    feature_norm: str = "none",
    branch_dropout: float = 0.0,
) -> nn.Sequential:
    """The classifier: features, optionally standardised, through dense layers to logits.

    Args:
        widths: number of features of each magnification; they lie side by side.
        hidden: widths of the hidden layers; () gives a linear classifier.
        num_classes: width of the output.
        dropout: after each hidden layer, or on the features where there is none.
        feature_norm: ``batch`` or ``none``.
        branch_dropout: chance of dropping a whole magnification; 0 leaves the layer out.
    """
    layers: list[nn.Module] = []
    width = sum(widths)
    if feature_norm == "batch":
        layers.append(FeatureNorm(width, affine=False))
    if branch_dropout > 0:
        layers.append(BranchDropout(widths, branch_dropout))
    if not hidden:
        layers.append(nn.Dropout(dropout))
    for units in hidden:
        layers += [_dense(width, units), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    layers.append(_dense(width, num_classes))
    return nn.Sequential(*layers)


def _dense(inputs: int, outputs: int) -> nn.Linear:
    """A layer that starts as Keras's ``Dense`` does (Glorot uniform, zero bias), in which TRI-CNN was written."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
