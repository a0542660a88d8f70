# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from tral_monai.networks.nuclei.class_head import SoftmaxHead
from tral_monai.networks.nuclei.roi_heads import OpenSetRoiHeads
from tral_monai.networks.nuclei.settings import DetectorSettings

TARGET = {
    "boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 10.0]]),
    "labels": torch.tensor([2, -1]),
}


def heads(**changes: object) -> OpenSetRoiHeads:
    values: dict[str, object] = {"strides": (4,), "pool_level": False, "fpn_channels": 4, "roi_size": 2}
    settings = DetectorSettings(**(values | {"representation": 6} | changes))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return OpenSetRoiHeads(settings, class_head=SoftmaxHead(6, 2), classes=2, prototypes=None)


def test_proposals_on_ignored_nuclei_are_neither_foreground_nor_background() -> None:
    proposals = torch.tensor(
        [
            [0.0, 0.0, 10.0, 12.0],  # IoU 0.83 with the known nucleus
            [0.0, 0.0, 10.0, 25.0],  # IoU 0.4: background
            [30.0, 0.0, 40.0, 10.0],  # the ignored nucleus: nothing
            [30.0, 0.0, 40.0, 20.0],  # IoU 0.5 with it, the threshold: nothing
            [30.0, 0.0, 40.0, 25.0],  # IoU 0.4 with it: background
        ]
    )
    labels, row = heads().label_proposals(proposals, TARGET)
    assert labels.tolist() == [2, 0, -1, -1, 0]
    assert row[0].item() == 0
    labels, _ = heads(roi_bg_iou=0.3).label_proposals(proposals, TARGET)
    assert labels.tolist() == [2, -1, -1, -1, -1]


def test_only_usable_nuclei_are_added_as_proposals_and_sampled() -> None:
    """The one proposal lies on the ignored nucleus, so the known nucleus itself is all there is to learn from."""
    module = heads()
    levels = {"4": torch.ones(1, 4, 16, 16)}
    proposals = [torch.tensor([[30.0, 0.0, 40.0, 10.0]])]
    terms, prototype_term = module.losses(levels, proposals, [(64, 64)], [TARGET])
    assert prototype_term is None
    assert terms["loss_classifier"].counts.tolist() == [1.0]
    assert terms["loss_box_reg"].counts.tolist() == [1.0]


def test_the_box_loss_is_that_of_the_own_class() -> None:
    module = heads()
    torch.nn.init.zeros_(module.box_regression.weight)
    with torch.no_grad():  # class 1 would move its box, class 2 stays put
        module.box_regression.bias.copy_(torch.tensor([9.0] * 4 + [0.0] * 4))
    terms, _ = module.losses({"4": torch.ones(1, 4, 16, 16)}, [torch.zeros(0, 4)], [(64, 64)], [TARGET])
    assert terms["loss_box_reg"].batch().item() == 0.0


def detections(module: OpenSetRoiHeads, proposals: torch.Tensor, logits: torch.Tensor) -> list[tuple[int, list[float]]]:
    torch.nn.init.zeros_(module.box_regression.weight)
    module.box_predictor.forward = lambda features: logits
    found = module.detect({"4": torch.ones(1, 4, 16, 16)}, [proposals], [(64, 64)])
    assert torch.equal(found.proposals, found.boxes)  # nothing moves them
    assert torch.allclose(found.probabilities.sum(dim=1), torch.ones(len(found.boxes)))
    return [(int(label), box.tolist()) for label, box in zip(found.labels, found.boxes, strict=True)]


PROPOSALS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 12.0], [30.0, 30.0, 40.0, 40.0]])
LOGITS = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 4.0], [6.0, 0.0, 0.0]])


def test_nms_is_by_class_or_over_all_classes() -> None:
    # The third proposal is background. The first two overlap by 0.83 and are of different classes.
    first, second = PROPOSALS[0].tolist(), PROPOSALS[1].tolist()
    module = heads(score_threshold=0.3)
    assert detections(module, PROPOSALS, LOGITS) == [(0, first), (1, second)]
    assert detections(heads(score_threshold=0.3, class_agnostic_nms=True), PROPOSALS, LOGITS) == [(0, first)]
    assert detections(heads(score_threshold=0.3, max_detections=1), PROPOSALS, LOGITS) == [(0, first)]


def test_boxes_are_clipped_to_their_image() -> None:
    proposals = torch.tensor([[50.0, 50.0, 70.0, 90.0]])
    module = heads(score_threshold=0.5)
    torch.nn.init.zeros_(module.box_regression.weight)
    module.box_predictor.forward = lambda features: torch.tensor([[0.0, 5.0, 0.0]])
    found = module.detect({"4": torch.ones(1, 4, 16, 16)}, [proposals], [(60, 64)])
    assert found.boxes.tolist() == [[50.0, 50.0, 64.0, 60.0]]
    assert found.scores.item() == pytest.approx(math.exp(5) / (math.exp(5) + 2))


def test_an_image_without_proposals_has_no_boxes() -> None:
    found = heads().detect({"4": torch.ones(2, 4, 16, 16)}, [torch.zeros(0, 4)] * 2, [(64, 64)] * 2)
    assert found.boxes.shape == (0, 4)
    assert found.features.shape == (0, 6)
