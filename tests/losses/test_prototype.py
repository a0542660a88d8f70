# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.losses.prototype import prototype_distances, prototype_loss, prototype_terms

PROTOTYPES = torch.tensor([[0.0, 0.0], [6.0, 8.0]])  # known, unknown: 10 apart


def test_eqs_1_and_2_by_hand() -> None:
    embeddings = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [30.0, 40.0]])
    sides = torch.tensor([0, 1, 1, 0])
    # on its own prototype, the other 10 away: 0 + 0
    # unknown, 5 from both: 5 + (10 - 5)
    # unknown, on the known prototype: 10 + (10 - 0)
    # known, 50 from its own, 40 from the other, which is beyond the margin: 50 + 0
    assert prototype_loss(embeddings, sides, PROTOTYPES).tolist() == [0.0, 10.0, 20.0, 50.0]
    assert prototype_terms(embeddings, sides, PROTOTYPES)[1].tolist() == [5.0, 5.0]


def test_the_distance_is_euclidean_and_not_squared() -> None:
    assert prototype_distances(torch.tensor([[3.0, 4.0], [6.0, 8.0]]), PROTOTYPES).tolist() == [[5, 5], [10, 0]]


def test_the_margin_can_be_changed() -> None:
    loss = prototype_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([0]), PROTOTYPES, margin=12.0)
    assert loss.tolist() == [2.0]


def test_an_embedding_on_a_prototype_has_a_finite_gradient() -> None:
    embeddings = torch.zeros(1, 2, requires_grad=True)
    points = PROTOTYPES.clone().requires_grad_(True)
    prototype_loss(embeddings, torch.tensor([0]), points, margin=12.0).sum().backward()
    assert embeddings.grad is not None
    assert points.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    # Only the other prototype pushes: towards it the loss rises by one per unit, along (0.6, 0.8).
    assert embeddings.grad[0].tolist() == pytest.approx([0.6, 0.8])
    assert points.grad[0].tolist() == [0.0, 0.0]


def test_no_nucleus_gives_no_loss() -> None:
    assert prototype_loss(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), PROTOTYPES).shape == (0,)


def test_a_margin_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin above 0.*got 0"):
        prototype_loss(torch.zeros(1, 2), torch.tensor([0]), PROTOTYPES, margin=0)
