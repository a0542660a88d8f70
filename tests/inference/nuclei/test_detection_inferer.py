# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.inference.nuclei.disc_fields import draw_discs
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.nuclei.detection_inferer import DetectionInferer
from tral_monai.inference.nuclei.engine_detector import engine_detector
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

FIELDS = [draw_discs((128, 128), [(40, 40, 10, 0), (90, 50, 12, 1)]), draw_discs((100, 64), [(50, 30, 9, 0)])]


def test_tiles_of_any_size_give_detections_with_evidence(detector: OpenSetRCNN) -> None:
    found = DetectionInferer()(FIELDS, detector)
    assert len(found) == 2
    assert found.evidence is not None
    assert found.evidence.shape == (len(found.labels), 2)
    best = found.of_image(1)
    assert np.abs(best.boxes_px[0] - [41, 21, 60, 40]).max() < 5


def test_another_network_needs_another_inferer() -> None:
    with pytest.raises(ConfigError, match="runs an OpenSetRCNN, but got a Identity; give an inferer of your own"):
        DetectionInferer()(FIELDS, torch.nn.Identity())


def test_another_precision_is_the_engines(detector: OpenSetRCNN) -> None:
    with pytest.raises(TypeError, match="takes no arguments"):
        DetectionInferer(autocast=True)  # type: ignore[call-arg]
    fast = engine_detector(detector, EngineSettings("torch", "bf16"), batch_size=1)
    full, half = (DetectionInferer()(FIELDS[:1], network) for network in (detector, fast))
    assert half.scores[0] != full.scores[0]
    assert half.scores[0] == pytest.approx(full.scores[0], abs=0.05)
