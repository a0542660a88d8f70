# SPDX-License-Identifier: Apache-2.0
"""The exit head: a linear classifier on low-magnification features that imitates the full model."""

from __future__ import annotations

import torch
from torch import nn

from tral_monai.errors import ConfigError

_MAX_ITERATIONS = 300


def fit_exit_head(
    features: torch.Tensor, probabilities: torch.Tensor, *, l2: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit multinomial logistic regression to the full model's probabilities (soft targets, no truth needed).

    The loss is the mean cross-entropy plus ``l2 / 2`` times the squared weights of standardised features. It is convex
    and the start is zero, so nothing is drawn and the same input gives the same head.

    Args:
        features: (n, F) float, pooled features of the low-magnification branches.
        probabilities: (n, C) float, each row summing to 1: what the full model says about the same tiles.
        l2: strength of the regularisation, above 0.

    Returns:
        Weight (C, F) and bias (C,), float32, for features as they are: the standardisation is folded in.

    Raises:
        ConfigError: ``l2`` is not above 0, there are fewer than two tiles, or the shapes do not fit.
    """
    if l2 <= 0:
        raise ConfigError(f"l2 must be above 0, but is {l2}")
    if features.ndim != 2 or probabilities.ndim != 2 or len(features) != len(probabilities) or len(features) < 2:
        raise ConfigError(
            "expected features (n, F) and probabilities (n, C) of at least two tiles, but got "
            f"{tuple(features.shape)} and {tuple(probabilities.shape)}"
        )
    mean, std = features.double().mean(dim=0), features.double().std(dim=0)
    scale = torch.where(std > 1e-6, 1.0 / std.clamp(min=1e-6), 0.0)  # a feature that never changes says nothing
    standardised = ((features.double() - mean) * scale).float()
    targets = probabilities.float()
    weight = torch.zeros(targets.shape[1], features.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=1e-5,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(nn.functional.linear(standardised, weight, bias), targets)
        value = value + 0.5 * l2 * weight.square().sum()
        value.backward()
        return float(value.detach())

    with torch.enable_grad():
        optimizer.step(loss)
    folded = weight.detach().double() * scale
    return folded.float(), (bias.detach().double() - folded @ mean).float()


def fit_temperature(logits: torch.Tensor, probabilities: torch.Tensor) -> float:
    """The temperature at which softened logits are closest to the full model's probabilities (cross-entropy).

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599, with the full model's probabilities as targets.

    Args:
        logits: (n, C) of the exit head.
        probabilities: (n, C) of the full model.

    Returns:
        A temperature from 0.05 to 20; logits are divided by it.
    """
    from scipy.optimize import minimize_scalar

    logits, targets = logits.double(), probabilities.double()

    def loss(log_temperature: float) -> float:
        return float(nn.functional.cross_entropy(logits / torch.tensor(log_temperature).exp(), targets))

    bound = float(torch.tensor(20.0).log())
    return float(torch.tensor(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x).exp())
