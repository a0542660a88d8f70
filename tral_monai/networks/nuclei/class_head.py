# SPDX-License-Identifier: Apache-2.0
"""What a RoI feature is: the paper's softmax over background and classes, or foreground times evidence for a class."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tral_monai.losses.evidential import (
    Activation,
    DataTerm,
    annealing,
    evidence_from_logits,
    evidential_loss,
)
from tral_monai.networks.nuclei.loss_term import LossTerm


class ClassHead(nn.Module):
    """Base of both heads: a linear layer from (m, D) RoI features to (m, 1 + K) logits; column 0 is not a class.

    Args:
        representation: D.
        classes: K.
    """

    def __init__(self, representation: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(representation, 1 + classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(m, 1 + K) float32 logits."""
        return self.linear(features).float()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(m, 1 + K) probabilities of background and the classes; rows sum to 1."""
        raise NotImplementedError

    def evidence(self, logits: torch.Tensor) -> torch.Tensor:
        """(m, K) evidence, 0 or more."""
        raise NotImplementedError

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor, count: int
    ) -> dict[str, LossTerm]:
        """Classification losses of sampled RoIs.

        Args:
            logits: (m, 1 + K).
            labels: (m,) int64, 0 background, 1 to K.
            images: (m,) int64, image of each RoI.
            count: Number of images.
        """
        raise NotImplementedError


class SoftmaxHead(ClassHead):
    """Cross-entropy over background and K classes; evidence is ReLU of the K foreground logits (OSAL-ND, Sec. 2.4).

    Args:
        representation: D.
        classes: K.
        temperature: Cross-entropy and probabilities see logits / temperature (LfOSA). Evidence and logits do not.
    """

    def __init__(self, representation: int, classes: int, *, temperature: float = 1.0) -> None:
        super().__init__(representation, classes)
        self.temperature = float(temperature)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Softmax of the logits over the temperature."""
        return torch.softmax(logits / self.temperature, dim=1)

    def evidence(self, logits: torch.Tensor) -> torch.Tensor:
        """ReLU of the foreground logits."""
        return evidence_from_logits(logits[:, 1:], activation="relu")

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor, count: int
    ) -> dict[str, LossTerm]:
        """``loss_classifier``."""
        values = functional.cross_entropy(logits / self.temperature, labels, reduction="none")
        return {"loss_classifier": LossTerm.of(values, images, torch.bincount(images, minlength=count))}


class EvidentialHead(ClassHead):
    """A foreground sigmoid, and evidence for K classes that is trained on foreground RoIs only.

    Softmax does not change when a constant is added to all logits, so the logits of a softmax head fix no scale of
    evidence; here the evidential loss does. Background is no class: it has no evidence. With e the evidence,
    a = e + 1 and Q = sum a, the probability of class k is foreground * a_k / Q, that of background 1 - foreground.

    Args:
        representation: D.
        classes: K.
        activation: ``"softplus"`` or ``"relu"``.
        data_term: See :func:`tral_monai.losses.evidential.evidential_loss`.
        annealing_steps: Training steps until the KL term has its full weight.

    Attributes:
        steps: () int64 buffer, training steps so far; travels in checkpoints.
    """

    def __init__(
        self,
        representation: int,
        classes: int,
        *,
        activation: Activation = "softplus",
        data_term: DataTerm = "digamma",
        annealing_steps: int = 1000,
    ) -> None:
        super().__init__(representation, classes)
        self.activation: Activation = activation
        self.data_term: DataTerm = data_term
        self.annealing_steps = annealing_steps
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Foreground times the mean of the Dirichlet distribution."""
        foreground = torch.sigmoid(logits[:, :1])
        alpha = self.evidence(logits) + 1
        return torch.cat([1 - foreground, foreground * alpha / alpha.sum(dim=1, keepdim=True)], dim=1)

    def evidence(self, logits: torch.Tensor) -> torch.Tensor:
        """Activation of the K class logits."""
        return evidence_from_logits(logits[:, 1:], activation=self.activation)

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor, count: int
    ) -> dict[str, LossTerm]:
        """``loss_foreground`` over all RoIs and ``loss_evidence`` over those in the foreground."""
        kl_weight = annealing(self.steps, self.annealing_steps)
        if self.training:
            self.steps += 1
        inside = labels > 0
        foreground = functional.binary_cross_entropy_with_logits(logits[:, 0], inside.float(), reduction="none")
        evidence = evidence_from_logits(logits[inside][:, 1:], activation=self.activation)
        values = evidential_loss(evidence, labels[inside] - 1, kl_weight=kl_weight, data_term=self.data_term)
        return {
            "loss_foreground": LossTerm.of(foreground, images, torch.bincount(images, minlength=count)),
            "loss_evidence": LossTerm.of(values, images[inside], torch.bincount(images[inside], minlength=count)),
        }
