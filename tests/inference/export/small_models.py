# SPDX-License-Identifier: Apache-2.0
"""Small networks to export: quick, and sure enough of themselves that a changed weight shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.bundles.bundle_files import NUCLEI, TISSUE
from tests.inference.nuclei.conftest import SMALLEST
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN

TISSUE_BUNDLE, NUCLEI_BUNDLE = TISSUE.folder, NUCLEI.folder
CLASSES = ("Stroma", "Muscle", "Blood")
COLOURS = {"Stroma": (228, 140, 190), "Muscle": (190, 70, 130), "Blood": (140, 30, 40)}
BACKBONE = "timm:test_resnet"


def small_tri_cnn(**settings: Any) -> TriCNN:
    """Random weights; the last layer made steep, so that probabilities are not all a third."""
    options: dict[str, Any] = {
        "backbone": BACKBONE,
        "hidden": [8],
        "magnifications": (40.0, 10.0),
        "seed": 0,
        **settings,
    }
    network = TriCNN(CLASSES, class_colors=COLOURS, **options).eval()
    with torch.no_grad():
        for parameter in network.head[-1].parameters():
            parameter.mul_(50.0)
    return network


def save_small(folder: Path, **settings: Any) -> Path:
    """A checkpoint of it."""
    return save_checkpoint(folder / "model.pt", small_tri_cnn(**settings))


def small_detector(**settings: Any) -> OpenSetRCNN:
    """Random weights, and all but the least likely boxes count."""
    options: dict[str, Any] = {**SMALLEST, "score_threshold": 0.08, "seed": 0, **settings}
    network = OpenSetRCNN(("tumour", "lymphocyte"), **options).eval()
    with torch.no_grad():  # scores far enough from each other that rounding does not change their order
        network.rpn.head.cls_logits.weight.mul_(100.0)
        network.roi_heads.box_predictor.linear.weight.mul_(100.0)
    return network
