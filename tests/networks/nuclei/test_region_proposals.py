# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tral_monai.networks.nuclei.region_proposals import OpenSetRpn
from tral_monai.networks.nuclei.settings import DetectorSettings

# One nucleus asked for, one that is not, far apart.
TARGET = {
    "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [100.0, 0.0, 110.0, 10.0]]),
    "labels": torch.tensor([2, -1]),
}


@pytest.fixture
def rpn() -> OpenSetRpn:
    return OpenSetRpn(DetectorSettings(strides=(4, 8), pool_level=False, fpn_channels=8))


def test_anchors_on_ignored_nuclei_are_neither_positive_nor_negative(rpn: OpenSetRpn) -> None:
    anchors = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],  # IoU 1 with the known nucleus: positive
            [0.0, 0.0, 10.0, 20.0],  # IoU 0.5 with it, between 0.3 and 0.7: nothing
            [50.0, 50.0, 60.0, 60.0],  # background
            [100.0, 0.0, 110.0, 10.0],  # IoU 1 with the ignored one: nothing
            [100.0, 0.0, 110.0, 20.0],  # IoU 0.5 with it: nothing
            [100.0, 0.0, 110.0, 40.0],  # IoU 0.25 with it, below 0.3: background
        ]
    )
    labels, row = rpn.label_anchors(anchors, TARGET)
    assert labels.tolist() == [1.0, -1.0, 0.0, -1.0, -1.0, 0.0]
    assert row[0].item() == 0


def test_the_best_anchor_of_a_nucleus_counts_even_below_the_threshold(rpn: OpenSetRpn) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 40.0], [100.0, 0.0, 110.0, 40.0]])  # IoU 0.25 with one nucleus each
    labels, row = rpn.label_anchors(anchors, TARGET)
    assert labels.tolist() == [1.0, -1.0]
    assert row.tolist() == [0, 1]


def test_a_field_without_nuclei_is_background(rpn: OpenSetRpn) -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    labels, _ = rpn.label_anchors(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), empty)
    assert labels.tolist() == [0.0]


def test_no_gradient_reaches_an_ignored_nucleus(rpn: OpenSetRpn) -> None:
    """Every anchor is sampled; those on the ignored nucleus still get no gradient, and those beside it do."""
    rpn.fg_bg_sampler.batch_size_per_image = 100
    anchors = torch.cat([TARGET["boxes"], torch.tensor([[50.0, 50.0, 60.0, 60.0]])])
    logits, deltas = torch.zeros(1, 3, requires_grad=True), torch.full((1, 3, 4), 0.5, requires_grad=True)
    terms = rpn._losses(logits, deltas, anchors, [TARGET])
    sum(term.batch() for term in terms.values()).backward()  # type: ignore[union-attr]
    assert logits.grad is not None
    assert deltas.grad is not None
    # Binary cross-entropy at logit 0 has gradient 0.5 - y, over the two anchors sampled.
    assert logits.grad[0].tolist() == [-0.25, 0.0, 0.25]
    assert deltas.grad[0].abs().sum(dim=1).gt(0).tolist() == [True, False, False]


def test_losses_are_kept_by_image(rpn: OpenSetRpn) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    logits = torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    terms = rpn._losses(logits, torch.zeros(2, 2, 4), anchors, [TARGET, empty])
    softplus = torch.nn.functional.softplus(torch.tensor([0.0, 3.0]))
    assert torch.allclose(terms["loss_objectness"].per_image(), softplus)
    assert terms["loss_objectness"].batch().item() == pytest.approx(softplus.mean().item())
    assert terms["loss_rpn_box_reg"].per_image().tolist() == [0.0, 0.0]


def test_proposals_lie_in_the_image_and_are_not_doubled(rpn: OpenSetRpn) -> None:
    anchors = torch.tensor([[-5.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])
    find: Callable[..., list[torch.Tensor]] = rpn._proposals
    (found,) = find(torch.tensor([[1.0, 3.0, 2.0]]), torch.zeros(1, 3, 4), anchors, [2, 1], [(30, 32)])
    assert found.tolist() == [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 32.0, 30.0]]
