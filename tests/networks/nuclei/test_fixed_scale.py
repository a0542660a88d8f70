# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from tral_monai.networks.normalization import Normalization
from tral_monai.networks.nuclei.fixed_scale import FixedScaleTransform

GREY = Normalization((100.0, 100.0, 100.0), (50.0, 50.0, 50.0))


def test_images_are_normalised_and_padded_but_never_resized() -> None:
    images = [torch.full((3, 30, 40), 200, dtype=torch.uint8)] * 2
    batch, targets = FixedScaleTransform(GREY, upsample=1.0, size_divisible=32)(images)
    assert batch.tensors.shape == (2, 3, 32, 64)
    assert batch.image_sizes == [(30, 40), (30, 40)]
    assert (batch.tensors[:, :, :30, :40] == 2.0).all()
    assert batch.tensors[:, :, 30:].abs().sum() == 0
    assert targets is None


def test_images_of_different_sizes_share_a_batch() -> None:
    images = [torch.full((3, 30, 40), 200, dtype=torch.uint8), torch.full((3, 50, 20), 150.0)]
    batch, _ = FixedScaleTransform(GREY, upsample=1.0, size_divisible=32)(images)
    assert batch.tensors.shape == (2, 3, 64, 64)
    assert (batch.tensors[1, :, :50, :20] == 1.0).all()
    assert batch.tensors[1, :, :, 20:].abs().sum() == 0


def test_boxes_follow_the_enlargement_and_come_back() -> None:
    transform = FixedScaleTransform(GREY, upsample=1.5, size_divisible=8)
    image = torch.zeros(3, 20, 33, dtype=torch.uint8)  # to 30 x 50: 33 * 1.5 = 49.5
    boxes = torch.tensor([[3.3, 2.0, 33.0, 20.0]])
    batch, targets = transform([image], [{"boxes": boxes, "labels": torch.tensor([1])}])
    assert batch.image_sizes == [(30, 50)]
    assert targets is not None
    assert torch.allclose(targets[0]["boxes"], torch.tensor([[5.0, 3.0, 50.0, 30.0]]))
    assert torch.allclose(transform.unscale_boxes(targets[0]["boxes"], image), boxes)
    assert boxes.tolist() == [[torch.tensor(3.3).item(), 2.0, 33.0, 20.0]]  # the caller's boxes are untouched
