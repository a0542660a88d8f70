# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import CheckpointError
from tral_monai.inference.nuclei.placed_nuclei import NucleusPlacer
from tral_monai.inference.nuclei.tile_plan import TilePlan

# Two tiles side by side, at x 0 and 60; the border of their cores is x 80.
PLAN = TilePlan((160, 100), 100, 40)
IMAGES = [torch.zeros(3, 100, 100, dtype=torch.uint8)] * 2


def answer(*images: list[tuple[float, int, float]]) -> Detections:
    """Boxes of 10 x 10 px at (x, 20) with a class and a score, per image."""
    boxes = [box for image in images for box in image]
    return Detections(
        offsets=np.cumsum([0, *(len(image) for image in images)]),
        boxes_px=np.array([[x, 20, x + 10, 30] for x, _, _ in boxes], dtype=np.float32).reshape(-1, 4),
        labels=np.array([label for _, label, _ in boxes], dtype=np.int64),
        scores=np.array([score for *_, score in boxes], dtype=np.float32),
    )


def place(detections: Detections, **settings: object) -> tuple[list[tuple[float, int, int]], int]:
    """(x, class, tile) of what is kept, and the number of full tiles."""
    options = {"min_score": 0.5, "nms_iou": 0.5, "max_detections": 300} | settings
    placer = NucleusPlacer(PLAN, ("tumour", "lymphocyte"), **options)  # type: ignore[arg-type]
    tiles = np.array([0, 1])
    found, full = placer(tiles, PLAN.starts_px(tiles), IMAGES, detections)
    assert np.isnan(found.distances).all()
    rows = zip(found.boxes_px[:, 0].tolist(), found.labels.tolist(), found.tiles.tolist(), strict=True)
    return list(rows), full


def test_a_tile_answers_for_its_core_and_boxes_are_moved_to_the_image() -> None:
    # Centres at 25; 95, which the first tile sees to be cut; 65 + 60; 7 + 60, more than 10 px outside of its core.
    detections = answer([(20, 0, 0.9), (90, 1, 0.9)], [(60, 1, 0.8), (2, 0, 0.9)])
    assert place(detections) == ([(20.0, 0, 0), (120.0, 1, 1)], 0)


def test_low_scores_are_left_out_and_the_best_of_two_classes_stays() -> None:
    # The second overlaps the first by 9 of 11 px, the same box in the other tile is another nucleus.
    detections = answer([(20, 0, 0.7), (21, 1, 0.8), (40, 0, 0.4)], [(40, 0, 0.9)])
    assert place(detections)[0] == [(21.0, 1, 0), (100.0, 0, 1)]


def test_full_tiles_are_counted() -> None:
    detections = answer([(20, 0, 0.7), (40, 1, 0.8)], [(40, 0, 0.9), (60, 0, 0.1)])
    assert place(detections, max_detections=2)[1] == 1  # the second tile has one that counts


def test_an_answer_for_other_tiles_is_refused() -> None:
    with pytest.raises(CheckpointError, match="must answer for 2 tiles, but answered for 1"):
        place(answer([(20, 0, 0.9)]))
    with pytest.raises(CheckpointError, match=r"labels 0 to 1, .* but gave 0 to 2; the checkpoint is of another class"):
        place(answer([(20, 0, 0.9)], [(20, 2, 0.9)]))
    with pytest.raises(CheckpointError, match="scores or evidence are not finite"):
        place(answer([(20, 0, float("nan"))], []))
