# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.inference.nuclei.disc_fields import CLASSES, COLOURS, draw_discs, scattered_discs
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.nuclei.prototypes import refit_prototypes
from tral_monai.networks.seeding import seeded

SMALLEST: dict[str, Any] = {
    "backbone": "timm:mobilenetv3_small_050",
    "strides": (4, 8),
    "pool_level": False,
    "fpn_channels": 32,
    "anchor_ratios": (1.0,),
    "frozen_stages": 2,
    "rpn_fg_iou": 0.5,
    "rpn_samples": 128,
    "rpn_candidates": (100, 100),
    "proposals": (100, 100),
    "roi_size": 5,
    "roi_sampling_ratio": 1,
    "roi_samples": 64,
    "roi_positive_fraction": 0.5,
    "representation": 64,
    "class_agnostic_regression": True,
    "fov_px": 128,
}


@pytest.fixture
def three_nuclei() -> NucleusMap:
    """Three nuclei on 0.02 mm2: two tumour, one lymphocyte; of the last one no distance is known. 0.5 um per pixel."""
    nan = np.nan
    return NucleusMap(
        boxes_level0=np.array([[10, 20, 30, 50], [100.25, 60, 120.75, 80], [0, 0, 8, 8]], dtype=np.float32),
        labels=np.array([0, 1, 0]),
        score=np.array([0.9, 0.75, 0.5], dtype=np.float32),
        uncertainty=np.array([0.25, 0.5, 1.0], dtype=np.float32),
        distance_known=np.array([1.5, 3.0, nan], dtype=np.float32),
        distance_unknown=np.array([4.0, 2.0, nan], dtype=np.float32),
        classes=("tumour", "lymphocyte", "stroma"),
        colours={"tumour": (200, 0, 0), "lymphocyte": (0, 90, 200), "stroma": (10, 20, 30)},
        dimensions=(200, 100),
        mpp_xy=(0.5, 0.5),
        analysed_mm2=0.02,
        tiles=1,
        failures=(),
        seconds={"total": 0.5},
    )


def train_detector(seed: int, classes: tuple[str, ...] = CLASSES) -> OpenSetRCNN:
    network = OpenSetRCNN(classes, role="target", seed=seed, class_colors=COLOURS, **SMALLEST).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    with seeded(seed):  # the network draws the RoIs to train on from the global generator
        for step in range(60):
            fields = [scattered_discs((128, 128), 12, seed=10 * step + n) for n in range(4)]
            images = [torch.from_numpy(draw_discs((128, 128), discs)).permute(2, 0, 1) for discs in fields]
            targets = [
                {
                    "boxes": torch.tensor([[x - r, y - r, x + r + 1, y + r + 1] for x, y, r, _ in discs]).float(),
                    "labels": torch.tensor([label + 1 for *_, label in discs]),
                }
                for discs in fields
            ]
            losses = network(images, targets)
            assert isinstance(losses, dict)
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="session")
def detector() -> OpenSetRCNN:
    """A real detector, trained for seconds on fields of discs until it finds them."""
    return train_detector(0)


@pytest.fixture(scope="session")
def auxiliary() -> OpenSetRCNN:
    """An auxiliary detector with random weights whose prototypes are those of red (known) and blue (unknown) discs."""
    network = OpenSetRCNN(CLASSES, role="prototype", seed=1, **SMALLEST).eval()
    discs = scattered_discs((256, 256), 40, seed=999)
    boxes = np.array([[x - r, y - r, x + r + 1, y + r + 1] for x, y, r, _ in discs], dtype=np.float32)
    sides = np.array([label + 1 for *_, label in discs])
    refit_prototypes(network, [(draw_discs((256, 256), discs), boxes, sides)], method="mean")
    return network
