# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.networks.nuclei.detect import WANTS, detect, roi_features
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

Build = Callable[..., OpenSetRCNN]
Field = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]
COMMON = frozenset({"features", "evidence", "logits", "proposals", "image_features"})


def images_of(field: Field) -> list[Any]:
    """Fields of two sizes, as arrays and as tensors."""
    first, second, third = (field(seed)[0] for seed in range(3))
    return [first.permute(1, 2, 0).numpy(), second, third[:, :48, :60].permute(1, 2, 0).numpy()]


@pytest.mark.parametrize("head", ["evidential", "softmax"])
def test_every_box_keeps_what_led_to_it(build: Build, field: Field, head: str) -> None:
    network = build(head=head, loss_prediction=True, score_threshold=0.1).train()
    images = images_of(field)
    found = detect(network, images, want=COMMON | {"predicted_losses"}, batch_size=2)
    boxes = found.detections
    total = int(boxes.offsets[-1])
    assert len(boxes) == 3
    assert total > 10
    shapes = {name: column.shape for name, column in boxes.columns().items()}
    assert shapes == {
        "boxes_px": (total, 4), "labels": (total,), "scores": (total,), "probabilities": (total, 3),
        "proposals_px": (total, 4), "evidence": (total, 2), "logits": (total, 2), "features": (total, 24),
    }  # fmt: skip
    assert found.image_features is not None
    assert found.image_features.shape == (3, 2 * 16)
    assert found.predicted_losses is not None
    assert found.predicted_losses.shape == (3,)
    assert boxes.probabilities is not None
    assert boxes.evidence is not None
    np.testing.assert_allclose(boxes.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(boxes.scores, boxes.probabilities[np.arange(total), boxes.labels + 1])
    assert (boxes.scores > 0.1).all()
    assert (boxes.evidence >= 0).all()
    for image in range(3):
        scores = boxes.of_image(image).scores
        assert (np.diff(scores) <= 0).all()
    assert boxes.of_image(2).boxes_px[:, 3].max() <= 48
    assert network.training


def test_the_features_of_a_box_are_those_of_its_proposal(build: Build, field: Field) -> None:
    network = build(upsample=1.5)
    images = images_of(field)[:2]
    found = detect(network, images, want={"features", "proposals", "logits"}).detections
    assert found.proposals_px is not None
    assert found.features is not None
    proposals = [found.of_image(row).proposals_px for row in range(2)]
    again = roi_features(network, images, proposals, batch_size=1)
    np.testing.assert_allclose(again, found.features, atol=1e-4)


def test_batches_do_not_change_what_is_found(build: Build, field: Field) -> None:
    network = build()
    images = [field(seed)[0] for seed in range(3)]
    one, all_ = (detect(network, images, batch_size=size).detections for size in (1, 3))
    assert one.offsets.tolist() == all_.offsets.tolist()
    np.testing.assert_allclose(one.boxes_px, all_.boxes_px, atol=1e-3)


def test_boxes_come_back_in_pixels_of_the_image(build: Build, field: Field) -> None:
    """Enlarged twice by the network or by the caller, the same field gives the same boxes."""
    image, _ = field(1)
    enlarged = torch.nn.functional.interpolate(image[None].float(), scale_factor=2, mode="bilinear")[0]
    inside = detect(build(upsample=2.0), [image]).detections
    outside = detect(build(anchor_sizes_px=[[24.0], [40.0]]), [enlarged]).detections
    np.testing.assert_allclose(inside.boxes_px, outside.boxes_px / 2, atol=1e-2)


def test_distances_to_prototypes(build: Build, field: Field) -> None:
    network = build(role="prototype")
    bank = network.prototypes
    assert bank is not None
    with torch.no_grad():
        bank.points[1] = 3.0
        bank.ready.fill_(True)
    found = detect(network, [field(0)[0]], want={"features", "prototype_distances"}).detections
    assert found.features is not None
    embedded = bank.embed(torch.from_numpy(found.features)).detach().numpy()
    assert found.prototype_distances is not None
    np.testing.assert_allclose(found.prototype_distances[:, 0], np.linalg.norm(embedded, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.prototype_distances[:, 1], np.linalg.norm(embedded - 3, axis=1), rtol=1e-4)


def test_nothing_found_and_nothing_to_look_at(build: Build, field: Field) -> None:
    network = build(score_threshold=1.0)
    found = detect(network, [field(0)[0]] * 2, want=COMMON)
    assert found.detections.offsets.tolist() == [0, 0, 0]
    assert found.detections.features is not None
    assert found.detections.features.shape == (0, 24)
    empty = detect(network, [], want=COMMON)
    assert len(empty.detections) == 0
    assert list(empty.detections.columns()) == list(found.detections.columns())
    assert empty.image_features is not None
    assert empty.image_features.shape == (0, 32)
    assert roi_features(network, [], []).shape == (0, 24)
    assert roi_features(network, [field(0)[0]], [np.zeros((0, 4))]).shape == (0, 24)


def test_autocast_gives_nearly_the_same(build: Build, field: Field) -> None:
    network, image = build(), field(0)[0]
    boxes = np.array([[4.0, 4.0, 18.0, 18.0]])
    exact, half = (roi_features(network, [image], [boxes], autocast=flag) for flag in (False, True))
    assert half.dtype == np.float32
    assert not np.array_equal(exact, half)
    np.testing.assert_allclose(exact, half, atol=0.05 * np.abs(exact).max())
    assert len(detect(network, [image], autocast=True, want=COMMON).detections) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_on_a_gpu(build: Build, field: Field) -> None:
    images = images_of(field)
    network = build()
    here = detect(network, images, want=COMMON).detections
    there = detect(network.cuda(), images, want=COMMON).detections
    assert abs(len(here.scores) - len(there.scores)) <= 3
    half = detect(network, images, want=COMMON, autocast=True)
    assert half.detections.boxes_px.dtype == np.float32


def test_bad_requests(build: Build, field: Field) -> None:
    network, image = build(), field(0)[0]
    with pytest.raises(ConfigError, match=r"but \['masks'\] is wanted"):
        detect(network, [image], want={"masks"})
    with pytest.raises(ConfigError, match="role 'prototype' has prototype_distances, but its role is 'target'"):
        detect(network, [image], want={"prototype_distances"})
    with pytest.raises(ConfigError, match="loss_prediction=True"):
        detect(network, [image], want={"predicted_losses"})
    with pytest.raises(ConfigError, match="batch_size must be at least 1, but is 0"):
        detect(network, [image], batch_size=0)
    with pytest.raises(ConfigError, match=r"RGB, but has shape \(64, 64\)"):
        detect(network, [np.zeros((64, 64), np.uint8)])
    with pytest.raises(ConfigError, match="1 images and 2 arrays"):
        roi_features(network, [image], [np.zeros((0, 4))] * 2)
    assert "features" in WANTS
