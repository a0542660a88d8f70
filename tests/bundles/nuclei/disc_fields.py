# SPDX-License-Identifier: Apache-2.0
"""Fields of drawn discs as a COCO data set, and settings with which a training takes a second on one core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bundles.bundle_files import NUCLEI

TRAIN, EVALUATE, INFERENCE, ACTIVE_LEARNING = (
    NUCLEI.config_folder / f"{name}.yaml" for name in ("train", "evaluate", "inference", "active_learning")
)
MULTI_GPU = NUCLEI.config_folder / "multi_gpu_train.yaml"

KNOWN = ("tumour", "lymphocyte")
UNKNOWN = "plasma"
COLOURS = {"tumour": (120, 20, 60), "lymphocyte": (40, 30, 140), "plasma": (20, 90, 60)}
TISSUE = (225, 160, 195)
FIELD_PX = 64
FIELDS = 12
MPP = 0.5

TINY: dict[str, Any] = {
    "strides": [4, 8],
    "pool_level": False,
    "fpn_channels": 16,
    "anchor_ratios": [1.0],
    "rpn_candidates": [60, 40],
    "proposals": [40, 30],
    "rpn_samples": 32,
    "roi_size": 3,
    "roi_samples": 16,
    "representation": 32,
    "projection": 8,
    "class_agnostic_regression": True,
    "max_detections": 30,
}
"""Sizes of a detector of which a training step takes milliseconds."""

SMALL: dict[str, Any] = {
    "bundle_root": str(NUCLEI.folder),
    "device": "$torch.device('cpu')",
    "backbone": "timm:mobilenetv3_small_050",
    "network_options": TINY,
    "optimizer_name": "AdamW",
    "optimizer_options": {"weight_decay": 0.01},
    "learning_rate": 3.0e-3,
    "batch_size": 4,
    "updates_per_epoch": 4,
    "max_epochs": 1,
}
"""Settings that train.yaml and active_learning.yaml share."""


def draw_field(rng: np.random.Generator, counts: dict[str, int]) -> tuple[np.ndarray, list[tuple[list[int], str]]]:
    """(64, 64, 3) uint8 with discs that do not touch, and xywh box and class of each."""
    pixels = np.full((FIELD_PX, FIELD_PX, 3), TISSUE, dtype=np.uint8)
    rows, columns = np.ogrid[:FIELD_PX, :FIELD_PX]
    places: list[tuple[int, int, int]] = []
    nuclei = []
    for name in (name for name, count in counts.items() for _ in range(count)):
        while True:
            radius = int(rng.integers(4, 7))
            x, y = (int(value) for value in rng.integers(radius, FIELD_PX - radius, 2))
            if all((x - a) ** 2 + (y - b) ** 2 > (radius + r + 2) ** 2 for a, b, r in places):
                break
        places.append((x, y, radius))
        pixels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = COLOURS[name]
        nuclei.append(([x - radius, y - radius, 2 * radius + 1, 2 * radius + 1], name))
    return pixels, nuclei


def write_fields(folder: Path) -> Path:
    """Twelve fields with 2 to 5 known nuclei and up to 3 unknown ones: images, and COCO's annotations.json."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(FIELDS):
        counts = {"tumour": 1 + number % 3, "lymphocyte": 1 + number % 2, UNKNOWN: number % 4}
        pixels, nuclei = draw_field(rng, counts)
        Image.fromarray(pixels).save(folder / f"field_{number:02d}.png")
        place = {"file_name": f"field_{number:02d}.png", "width": FIELD_PX, "height": FIELD_PX}
        images.append({"id": number, **place, "mpp": MPP, "patient": f"P{number // 2}"})
        for box, name in nuclei:
            identity = {"id": len(annotations), "image_id": number, "category_id": list(COLOURS).index(name)}
            annotations.append({**identity, "bbox": box, "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(COLOURS)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations.json").write_text(text)
    return folder
