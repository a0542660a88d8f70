# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from tral_monai.networks.nuclei.overlap import pairwise_iou


def test_by_hand_and_as_torchvision() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 40.0]])
    others = torch.tensor([[5.0, 0.0, 15.0, 10.0], [0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    found = pairwise_iou(boxes, others)
    assert found[0].tolist() == pytest.approx([50 / 150, 1.0, 0.0])
    assert found[1].tolist() == [0.0, 0.0, 0.0]
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(50, 2, generator=generator) * 80
    many = torch.cat([corner, corner + 1 + torch.rand(50, 2, generator=generator) * 40], dim=1)
    assert torch.allclose(pairwise_iou(boxes, many), box_iou(boxes, many))
