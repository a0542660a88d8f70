# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.losses.evidential import (
    annealing,
    evidence_from_logits,
    evidential_loss,
    kl_to_uniform,
)


def test_the_loss_by_hand() -> None:
    evidence = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    # a = (2, 1), Q = 3. psi(n + 1) - psi(n) = 1 / n, so label 0: 1/2, label 1: 1 + 1/2. For label 1 the wrong
    # evidence leaves Dir(2, 1), whose density on [0, 1] is 2x: KL = integral of 2x ln 2x = ln 2 - 1/2.
    loss = evidential_loss(evidence, torch.tensor([0, 1]), kl_weight=0.1)
    assert loss.tolist() == pytest.approx([0.5, 1.5 + 0.1 * (math.log(2) - 0.5)])
    loss = evidential_loss(evidence, torch.tensor([0, 1]), kl_weight=0.0, data_term="log")
    assert loss.tolist() == pytest.approx([math.log(3) - math.log(2), math.log(3)])


def test_one_class_has_nothing_to_tell_apart() -> None:
    evidence = torch.tensor([[4.0]], requires_grad=True)
    loss = evidential_loss(evidence, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_kl_of_the_uniform_distribution_is_zero() -> None:
    assert kl_to_uniform(torch.ones(2, 5, dtype=torch.float64)).tolist() == pytest.approx([0.0, 0.0])


def test_evidence_is_never_negative_and_softplus_always_learns() -> None:
    logits = torch.tensor([[-3.0, 0.0, 2.0]], requires_grad=True)
    assert evidence_from_logits(logits, activation="relu").tolist() == [[0.0, 0.0, 2.0]]
    soft = evidence_from_logits(logits)
    assert soft[0, 1].item() == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(soft.sum(), logits)
    assert (gradient > 0).all()
    (dead,) = torch.autograd.grad(evidence_from_logits(logits, activation="relu").sum(), logits)
    assert dead[0, 0] == 0


def test_annealing_rises_to_one() -> None:
    assert [float(annealing(step, 50)) for step in (0, 25, 50, 80)] == [0.0, 0.5, 1.0, 1.0]
    assert float(annealing(torch.tensor(10), 50)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: annealing(3, 0), "1 step or more, but got 0"),
        (lambda: evidence_from_logits(torch.zeros(1, 2), activation="exp"), "'softplus' or 'relu', but got 'exp'"),
        (
            lambda: evidential_loss(torch.zeros(1, 2), torch.tensor([0]), data_term="mse"),
            "'digamma' or 'log', but got 'mse'",
        ),
    ],
)
def test_bad_settings(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
