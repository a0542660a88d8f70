# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.inference.nuclei.disc_fields import draw_discs, scattered_discs
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.inference.nuclei.detection_agreement import detection_agreement
from tral_monai.inference.nuclei.engine_detector import engine_detector
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN


def _fields(count: int, size_px: int = 128) -> list[Any]:
    return [draw_discs((size_px, size_px), scattered_discs((size_px, size_px), 12, seed=900 + n)) for n in range(count)]


def test_the_same_nuclei_are_found_and_the_original_stays(detector: OpenSetRCNN) -> None:
    before, backbone = weights_sha256(detector), detector.backbone
    fast = engine_detector(detector, EngineSettings("torch", "bf16"))
    images = [*_fields(3), *_fields(1, 192)]  # two sizes
    reference = detect(detector, images, want={"evidence"}, batch_size=3).detections
    found = detect(fast, images, want={"evidence"}, batch_size=3).detections
    assert reference.counts.min() >= 10
    agreement = detection_agreement(reference, found, min_score=0.5)
    # Two boxes of one disc that overlap by just as much as NMS allows may become one.
    assert agreement.class_agreement > 0.95
    assert 0.0 < agreement.largest_probability_difference < 0.05
    assert weights_sha256(detector) == weights_sha256(fast) == before
    assert fast.contract.state_dict() == detector.contract.state_dict()
    assert detector.backbone is backbone


def test_an_exported_backbone(detector: OpenSetRCNN) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    images = _fields(3)
    fast = engine_detector(detector, EngineSettings("onnxruntime"))
    reference = detect(detector, images).detections
    agreement = detection_agreement(reference, detect(fast, images, batch_size=2).detections)
    assert agreement.class_agreement == 1.0
    assert agreement.largest_probability_difference < 1e-4


def test_the_reference_engine_is_the_network(detector: OpenSetRCNN) -> None:
    assert engine_detector(detector, EngineSettings()) is detector


def test_it_cannot_be_trained_and_leaves_the_original_in_its_mode(detector: OpenSetRCNN) -> None:
    fast = engine_detector(detector, EngineSettings("torch", "bf16"))
    fast.train()
    assert not any(part.training for part in detector.modules())
    target = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([1])}
    with pytest.raises(ConfigError, match="a detector in an engine cannot be trained; train the one that it was made"):
        fast([torch.zeros(3, 64, 64, dtype=torch.uint8)], [target])


def test_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine_detector takes an OpenSetRCNN, but got a Linear"):
        engine_detector(torch.nn.Linear(1, 1), EngineSettings("torch", "bf16"))  # type: ignore[arg-type]


def test_the_engine_is_made_for_whole_batches(detector: OpenSetRCNN) -> None:
    seen: list[int] = []
    hook = detector.backbone.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    fast = engine_detector(detector, EngineSettings("torch", "bf16"), batch_size=3)
    detect(fast, _fields(1), batch_size=3)
    hook.remove()
    assert seen[:3] == [1, 3, 1]  # the cast is tried, then the engine with its example, then the image
    with pytest.raises(ConfigError, match="batch_size must be at least 1, but is 0"):
        engine_detector(detector, EngineSettings(), batch_size=0)
