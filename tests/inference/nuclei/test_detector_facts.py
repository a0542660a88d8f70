# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tests.inference.nuclei.disc_fields import CLASSES, COLOURS
from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.detector_facts import detector_facts
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN


def test_facts_of_a_real_detector(detector: OpenSetRCNN) -> None:
    facts = detector_facts(detector)
    assert facts.classes == CLASSES
    assert facts.colours == COLOURS
    assert (facts.fov_mpp, facts.fov_px, facts.max_detections) == (0.25, 128, 300)


def test_a_class_without_a_colour_gets_one() -> None:
    network = OpenSetRCNN(
        ["a", "b"], seed=0, backbone="timm:mobilenetv3_small_050", strides=(4, 8), class_colors={"a": (1, 2, 3)}
    )
    colours = detector_facts(network).colours
    assert colours["a"] == (1, 2, 3)
    assert set(colours) == {"a", "b"}


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="but Identity has no contract"):
        detector_facts(torch.nn.Identity())
    tissue = TriCNN(["Stroma", "Muscle"], backbone="timm:mobilenetv3_small_050", hidden=(4,), seed=0)
    with pytest.raises(ConfigError, match=r"the contract of TriCNN lacks \['fov_mpp', 'fov_px', 'max_detections'\]"):
        detector_facts(tissue)
