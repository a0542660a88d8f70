# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from tral_monai.networks.nuclei.anchors import CachedAnchors

SIZES, RATIOS, STRIDES = ((8.0, 16.0), (24.0, 32.0)), (0.5, 1.0), (4, 8)


def maps(height: int, width: int) -> list[torch.Tensor]:
    return [torch.zeros(2, 1, height // stride, width // stride) for stride in STRIDES]


def test_the_anchors_are_torchvisions() -> None:
    anchors = CachedAnchors(SIZES, RATIOS, strides=STRIDES)
    images = ImageList(torch.zeros(2, 3, 32, 64), [(32, 64), (30, 60)])
    expected = AnchorGenerator(SIZES, (RATIOS,) * 2)(images, maps(32, 64))
    found = anchors(images, maps(32, 64))
    assert len(found) == 2
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_each_size_of_image_is_computed_once() -> None:
    anchors = CachedAnchors(SIZES, RATIOS, strides=STRIDES)
    first = anchors.anchors(maps(32, 64))
    assert anchors.anchors(maps(32, 64)) is first
    assert len(anchors.anchors(maps(64, 64))) == 2 * len(first)
    for side in range(1, 20):  # the cache does not grow for ever
        anchors.anchors(maps(8 * side, 8))
    assert len(anchors._cache) <= 8
