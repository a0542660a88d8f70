# SPDX-License-Identifier: Apache-2.0
"""Evidential classification: evidence for each class is a Dirichlet distribution over class probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from tral_monai.errors import ConfigError

Activation = Literal["softplus", "relu"]
DataTerm = Literal["digamma", "log"]


def evidence_from_logits(logits: torch.Tensor, *, activation: Activation = "softplus") -> torch.Tensor:
    """Evidence of each class, 0 or more.

    Args:
        logits: (n, K).
        activation: ``"relu"`` is OSAL-ND's. It has no gradient where it gives no evidence, so a nucleus whose evidence
            is 0 everywhere never learns; ``"softplus"`` has no such dead zone.

    Returns:
        (n, K).

    Raises:
        ConfigError: Another activation.
    """
    if activation not in ("softplus", "relu"):
        raise ConfigError(f"evidence comes from 'softplus' or 'relu', but got {activation!r}")
    return functional.softplus(logits) if activation == "softplus" else functional.relu(logits)


def annealing(step: int | torch.Tensor, steps: int) -> torch.Tensor:
    """Weight of the KL term, min(1, t / T): wrong evidence is punished only after some has been gathered.

    Args:
        step: t, training steps (the original counts epochs) done so far.
        steps: T, 50 epochs in the original.

    Returns:
        () float, 0 to 1.

    Raises:
        ConfigError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ConfigError(f"annealing needs 1 step or more, but got {steps!r}")
    return (torch.as_tensor(step, dtype=torch.float32) / steps).clamp(max=1.0)


def evidential_loss(
    evidence: torch.Tensor,
    labels: torch.Tensor,
    *,
    kl_weight: float | torch.Tensor = 1.0,
    data_term: DataTerm = "digamma",
) -> torch.Tensor:
    """Loss of each sample: fit to the label plus a pull of all evidence for other classes to zero.

    Sensoy et al., NeurIPS 2018 (evidential deep learning), as Han et al. (trusted multi-view classification) train it.
    With a = e + 1, Q = sum a and one-hot y: sum_k y_k (psi(Q) - psi(a_k)) + w KL[Dir(y + (1 - y) a) || Dir(1)].

    Args:
        evidence: (n, K), 0 or more.
        labels: (n,) int64, 0 to K - 1.
        kl_weight: w, see :func:`annealing`.
        data_term: ``"digamma"`` is the Bayes risk of cross-entropy; ``"log"`` is type II maximum likelihood, with
            logarithms in place of psi.

    Returns:
        (n,) float.

    Raises:
        ConfigError: Another data term.
    """
    if data_term not in ("digamma", "log"):
        raise ConfigError(f"the evidential loss's data term is 'digamma' or 'log', but got {data_term!r}")
    alpha = evidence + 1
    psi = torch.digamma if data_term == "digamma" else torch.log
    own = alpha.gather(1, labels[:, None]).squeeze(1)
    fit = psi(alpha.sum(dim=1)) - psi(own)
    wrong = alpha.scatter(1, labels[:, None], 1.0)
    return fit + kl_weight * kl_to_uniform(wrong)


def kl_to_uniform(alpha: torch.Tensor) -> torch.Tensor:
    """KL divergence of Dirichlet distributions from the uniform one, Dir(1, ..., 1).

    Args:
        alpha: (n, K), above 0.

    Returns:
        (n,) float, 0 or more.
    """
    total = alpha.sum(dim=1)
    classes = torch.tensor(float(alpha.shape[1]), dtype=alpha.dtype, device=alpha.device)
    norm = torch.lgamma(total) - torch.lgamma(classes) - torch.lgamma(alpha).sum(dim=1)
    mean = (alpha - 1) * (torch.digamma(alpha) - torch.digamma(total)[:, None])
    return norm + mean.sum(dim=1)
