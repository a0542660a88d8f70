# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from tral_monai.networks.nuclei.class_head import EvidentialHead, SoftmaxHead

IMAGES = torch.tensor([0, 0, 1])


def test_softmax_is_the_papers_head() -> None:
    head = SoftmaxHead(4, 2)
    logits = torch.tensor([[0.0, math.log(3.0), -1.0]])
    total = 1 + 3 + math.exp(-1)
    assert head.probabilities(logits)[0].tolist() == pytest.approx([1 / total, 3 / total, math.exp(-1) / total])
    assert head.evidence(logits)[0].tolist() == pytest.approx([math.log(3.0), 0.0])  # background has no evidence


def test_temperature_sharpens_probabilities_but_not_logits_or_evidence() -> None:
    head = SoftmaxHead(4, 1, temperature=0.5)
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert head.probabilities(logits)[0].tolist() == pytest.approx([0.1, 0.9])  # softmax of twice the logits
    assert head.evidence(logits).item() == pytest.approx(math.log(3.0))
    terms = head.losses(logits, torch.tensor([1]), torch.tensor([0]), 1)
    assert terms["loss_classifier"].batch().item() == pytest.approx(-math.log(0.9))


def test_cross_entropy_by_image() -> None:
    head = SoftmaxHead(4, 1)
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [0.0, 0.0]])
    term = head.losses(logits, torch.tensor([1, 0, 1]), IMAGES, 2)["loss_classifier"]
    assert term.per_image().tolist() == pytest.approx([(math.log(2) + math.log(4 / 3)) / 2, math.log(2)])


def test_evidential_probability_is_foreground_times_dirichlet_mean() -> None:
    head = EvidentialHead(4, 2, activation="relu")
    logits = torch.tensor([[math.log(4.0), 2.0, -5.0]])  # foreground 0.8, evidence (2, 0), alpha (3, 1)
    assert head.evidence(logits)[0].tolist() == [2.0, 0.0]
    assert head.probabilities(logits)[0].tolist() == pytest.approx([0.2, 0.6, 0.2])


def test_evidence_learns_from_foreground_only() -> None:
    head = EvidentialHead(4, 2, activation="relu", annealing_steps=10).train()
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 9.0, 9.0], [0.0, 1.0, 0.0]], requires_grad=True)
    terms = head.losses(logits, torch.tensor([1, 0, 2]), IMAGES, 2)
    assert terms["loss_foreground"].per_image().tolist() == pytest.approx([math.log(2)] * 2)
    # alpha (2, 1): 1/2 for class 1, 3/2 for class 2; the KL term has no weight in the first step.
    assert terms["loss_evidence"].per_image().tolist() == pytest.approx([0.5, 1.5])
    (gradient,) = torch.autograd.grad(terms["loss_evidence"].batch(), logits)
    assert gradient[1].tolist() == [0.0, 0.0, 0.0]


def test_the_kl_term_is_annealed_by_training_steps() -> None:
    head = EvidentialHead(4, 2, activation="relu", annealing_steps=4)
    logits, labels, images = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([2]), torch.tensor([0])
    kl = math.log(2) - 0.5  # of Dir(2, 1)
    found = [head.losses(logits, labels, images, 1)["loss_evidence"].batch().item() for _ in range(6)]
    assert found == pytest.approx([1.5 + kl * weight for weight in (0, 0.25, 0.5, 0.75, 1, 1)])
    head.eval()
    head.losses(logits, labels, images, 1)
    assert head.steps.item() == 6
    assert "steps" in head.state_dict()


def test_no_foreground_gives_a_loss_of_zero_that_stays_connected() -> None:
    head = EvidentialHead(4, 2)
    features = torch.ones(1, 4)
    terms = head.losses(head(features), torch.tensor([0]), torch.tensor([0]), 1)
    total = sum(term.batch() for term in terms.values())
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert terms["loss_evidence"].batch().item() == 0.0
    assert head.linear.weight.grad is not None
