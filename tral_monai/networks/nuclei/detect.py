# SPDX-License-Identifier: Apache-2.0
"""What a detector finds in fields of view, as the plain arrays that strategies, metrics and writers share."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.data.nuclei.detections import Detections, concatenate
from tral_monai.errors import ConfigError
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.nuclei.roi_heads import Regions

FloatArray = npt.NDArray[np.float32]
Image = torch.Tensor | npt.NDArray[Any]

WANTS = frozenset(
    {"features", "evidence", "logits", "proposals", "image_features", "predicted_losses", "prototype_distances"}
)
"""What :func:`detect` can add to boxes, labels, scores and probabilities."""


@dataclass(frozen=True, eq=False)
class FieldOutputs:
    """What a detector says of n fields of view.

    Args:
        detections: Boxes of all fields, best first in each.
        image_features: (n, levels * channels) float32 pooled pyramid levels, if wanted.
        predicted_losses: (n,) float32, if wanted.
    """

    detections: Detections
    image_features: FloatArray | None = None
    predicted_losses: FloatArray | None = None


def detect(
    network: OpenSetRCNN,
    images: Sequence[Image],
    *,
    want: Collection[str] = frozenset(),
    batch_size: int = 8,
    autocast: bool = False,
) -> FieldOutputs:
    """Runs a detector in evaluation mode, without gradients, on the device that it is on.

    Args:
        network: The detector; its training mode is as before afterwards.
        images: (h, w, 3) uint8 arrays, or (3, h, w) tensors on the scale 0 to 255. Sizes may differ.
        want: What to add, a subset of :data:`WANTS`. Less is faster to carry around.
        batch_size: Images that go through the network together.
        autocast: Half precision (float16 on CUDA, bfloat16 on CPU) where torch thinks it safe.

    Returns:
        Fields in the order of ``images``; boxes and proposals in pixels of each image.

    Raises:
        ConfigError: Something unknown is wanted, or something that this detector lacks.
    """
    wanted = _checked_want(network, want)
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, but is {batch_size!r}")
    parts: list[Detections] = []
    pooled: list[FloatArray] = []
    losses: list[FloatArray] = []
    with _evaluating(network, autocast=autocast):
        for start in range(0, len(images), batch_size):
            batch = [as_tensor(image, network.device) for image in images[start : start + batch_size]]
            regions, levels = network.regions(batch)
            parts.append(_detections(network, regions, batch, wanted))
            if "image_features" in wanted:
                pooled.append(_array(levels.flatten(1)))
            if "predicted_losses" in wanted:
                assert network.loss_prediction is not None
                losses.append(_array(network.loss_prediction(levels)))
    found = concatenate(parts) if parts else _nothing(network, wanted)
    width = len(network.settings.strides) * network.settings.fpn_channels
    return FieldOutputs(
        found,
        np.concatenate([*pooled, np.zeros((0, width), np.float32)]) if "image_features" in wanted else None,
        np.concatenate([*losses, np.zeros(0, np.float32)]) if "predicted_losses" in wanted else None,
    )


def roi_features(
    network: OpenSetRCNN,
    images: Sequence[Image],
    boxes_px: Sequence[Any],
    *,
    batch_size: int = 8,
    autocast: bool = False,
) -> FloatArray:
    """RoI features at given boxes, such as those that an annotator drew.

    Args:
        network: The detector.
        images: See :func:`detect`.
        boxes_px: (k, 4) array or tensor per image, in its pixels.
        batch_size: Images that go through the network together.
        autocast: See :func:`detect`.

    Returns:
        (sum k, D) float32.

    Raises:
        ConfigError: There is not one array of boxes per image.
    """
    if len(images) != len(boxes_px):
        raise ConfigError(f"each image needs its boxes, but there are {len(images)} images and {len(boxes_px)} arrays")
    parts: list[FloatArray] = [np.zeros((0, network.settings.representation), np.float32)]
    with _evaluating(network, autocast=autocast):
        for start in range(0, len(images), batch_size):
            batch = [as_tensor(image, network.device) for image in images[start : start + batch_size]]
            boxes = [
                torch.as_tensor(b, dtype=torch.float32, device=network.device).reshape(-1, 4)
                for b in boxes_px[start : start + batch_size]
            ]
            parts.append(_array(network.features_at(batch, boxes)))
    return np.concatenate(parts)


def as_tensor(image: Image, device: torch.device) -> torch.Tensor:
    """(3, h, w) tensor on the device of an (h, w, 3) array or a (3, h, w) tensor.

    Raises:
        ConfigError: Another shape.
    """
    tensor = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(image))
    if not isinstance(image, torch.Tensor) and tensor.dim() == 3:
        tensor = tensor.permute(2, 0, 1)
    if tensor.dim() != 3 or tensor.shape[0] != 3 or not tensor.numel():
        raise ConfigError(
            f"an image must be an (h, w, 3) array or a (3, h, w) tensor of RGB, but has shape {tuple(image.shape)}"
        )
    return tensor.to(device)


@contextlib.contextmanager
def _evaluating(network: OpenSetRCNN, *, autocast: bool) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards, the network is as it was."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode(), torch.autocast(network.device.type, enabled=autocast):
            yield
    finally:
        network.train(was_training)


def _checked_want(network: OpenSetRCNN, want: Collection[str]) -> frozenset[str]:
    unknown = sorted(set(want) - WANTS)
    if unknown:
        raise ConfigError(f"a detector gives {sorted(WANTS)}, but {unknown} is wanted")
    if "prototype_distances" in want and network.prototypes is None:
        raise ConfigError(
            f"only a detector of role 'prototype' has prototype_distances, but its role is {network.role!r}"
        )
    if "predicted_losses" in want and network.loss_prediction is None:
        raise ConfigError("predicted_losses need a detector with loss_prediction=True; train one")
    return frozenset(want)


def _detections(
    network: OpenSetRCNN, regions: Regions, images: Sequence[torch.Tensor], wanted: frozenset[str]
) -> Detections:
    counts = torch.bincount(regions.image, minlength=len(images)).cpu().numpy()
    head, bank = network.roi_heads.box_predictor, network.prototypes

    def in_image(boxes: torch.Tensor) -> FloatArray:
        factors = torch.stack(
            [network.transform.unscale_boxes(torch.ones(1, 4, device=boxes.device), i) for i in images]
        )
        return _array(boxes * factors[regions.image, 0])

    return Detections(
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes_px=in_image(regions.boxes),
        labels=regions.labels.cpu().numpy(),
        scores=_array(regions.scores),
        probabilities=_array(regions.probabilities),
        proposals_px=in_image(regions.proposals) if "proposals" in wanted else None,
        evidence=_array(head.evidence(regions.logits)) if "evidence" in wanted else None,
        logits=_array(regions.logits[:, 1:]) if "logits" in wanted else None,
        features=_array(regions.features) if "features" in wanted else None,
        prototype_distances=(
            _array(bank.distances(regions.features)) if bank is not None and "prototype_distances" in wanted else None
        ),
    )


def _nothing(network: OpenSetRCNN, wanted: frozenset[str]) -> Detections:
    """No image at all, with the columns that some images would have."""
    classes = len(network.outputs)

    def empty(name: str, width: int) -> FloatArray | None:
        return np.zeros((0, width), np.float32) if name in wanted else None

    return Detections(
        offsets=np.zeros(1, np.int64),
        boxes_px=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        scores=np.zeros(0, np.float32),
        probabilities=np.zeros((0, 1 + classes), np.float32),
        proposals_px=empty("proposals", 4),
        evidence=empty("evidence", classes),
        logits=empty("logits", classes),
        features=empty("features", network.settings.representation),
        prototype_distances=empty("prototype_distances", 2),
    )


def _array(values: torch.Tensor) -> FloatArray:
    found: FloatArray = values.float().cpu().numpy()
    return found
