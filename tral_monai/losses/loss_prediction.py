# SPDX-License-Identifier: Apache-2.0
"""The ranking loss of a head that predicts how large the loss of an image is (LL4AL)."""

from __future__ import annotations

import torch

from tral_monai.errors import ConfigError


def loss_prediction_loss(predicted: torch.Tensor, target: torch.Tensor, *, margin: float = 1.0) -> torch.Tensor:
    """Mean margin ranking loss over pairs of a batch, Yoo & Kweon, CVPR 2019 (learning loss for active learning).

    Image i is paired with image n - 1 - i. A pair pays max(0, -sgn(l_i - l_j) (p_i - p_j) + margin): only the order
    counts, because the scale of a loss falls while a network learns. Of an odd batch the middle image has no partner.
    A pair with equal losses is left out, because it has no order.

    Args:
        predicted: (n,) predicted losses.
        target: (n,) losses; no gradient goes into them.
        margin: The paper's xi.

    Returns:
        () float; 0 where the batch has no pair.

    Raises:
        ConfigError: The shapes differ or the margin is not above 0.
    """
    if predicted.dim() != 1 or predicted.shape != target.shape:
        raise ConfigError(
            f"predicted and true losses must be two vectors of one length, but are {tuple(predicted.shape)} and "
            f"{tuple(target.shape)}"
        )
    if margin <= 0:
        raise ConfigError(f"the loss prediction loss needs a margin above 0 (the paper's is 1), but got {margin!r}")
    pairs = len(predicted) // 2
    difference = (predicted - predicted.flip(0))[:pairs]
    order = torch.sign((target - target.flip(0))[:pairs].detach())
    hinge = (margin - order * difference).clamp(min=0) * order.abs()
    # The sum of all predictions times zero keeps a batch of one connected to the head, as DDP demands.
    return hinge.sum() / order.abs().sum().clamp(min=1) + 0.0 * predicted.sum()
