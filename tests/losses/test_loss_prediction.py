# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.losses.loss_prediction import loss_prediction_loss


def test_pairs_by_hand() -> None:
    # Pairs (0, 3) and (1, 2). Image 0 has the larger loss but is predicted 4 lower: 1 + 4. Image 1 has the larger loss
    # and is predicted 3 higher, beyond the margin: 0. Their mean is 2.5.
    predicted, target = torch.tensor([1.0, 5.0, 2.0, 5.0]), torch.tensor([4.0, 3.0, 1.0, 2.0])
    assert loss_prediction_loss(predicted, target).item() == 2.5
    # Within the margin: 1 - 0.25.
    assert loss_prediction_loss(torch.tensor([0.25, 0.0]), torch.tensor([2.0, 1.0])).item() == 0.75
    assert loss_prediction_loss(torch.tensor([0.25, 0.0]), torch.tensor([2.0, 1.0]), margin=0.2).item() == 0.0


def test_a_pair_of_equal_losses_is_left_out() -> None:
    predicted, target = torch.tensor([1.0, 2.0, 9.0, 5.0]), torch.tensor([4.0, 3.0, 3.0, 2.0])
    assert loss_prediction_loss(predicted, target).item() == 5.0


def test_the_middle_of_an_odd_batch_has_no_partner() -> None:
    loss = loss_prediction_loss(torch.tensor([0.0, 77.0, 0.5]), torch.tensor([1.0, 5.0, 0.0]))
    assert loss.item() == 1.5


def test_one_image_gives_zero_and_stays_connected() -> None:
    predicted = torch.tensor([3.0], requires_grad=True)
    loss = loss_prediction_loss(predicted, torch.tensor([1.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert predicted.grad is not None
    assert predicted.grad.item() == 0.0


def test_no_gradient_reaches_the_target() -> None:
    predicted = torch.tensor([0.0, 1.0], requires_grad=True)
    target = torch.tensor([1.0, 0.0], requires_grad=True)
    loss_prediction_loss(predicted, target).backward()
    assert target.grad is None
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [-1.0, 1.0]


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="two vectors of one length, but are"):
        loss_prediction_loss(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ConfigError, match="margin above 0.*got -1"):
        loss_prediction_loss(torch.zeros(2), torch.zeros(2), margin=-1)
