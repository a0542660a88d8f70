# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tral_monai.data.nuclei.dataset import NucleusDataset
from tral_monai.errors import ConfigError
from tral_monai.transforms import RandStainJitter
from tral_monai.transforms.boxes import ImageOnly, RandTurn, inverse_element, turn_boxes, turn_image
from tral_monai.transforms.geometry import apply_dihedral

# A box (1, 2) to (4, 8) in an image of 10 x 20 (width x height), turned by hand. Elements 4 to 7 give 20 x 10.
BOXES = {
    0: [1, 2, 4, 8],
    1: [6, 2, 9, 8],  # mirrored left to right: 10 - 4, 10 - 1
    2: [1, 12, 4, 18],  # top to bottom: 20 - 8, 20 - 2
    3: [6, 12, 9, 18],
    4: [2, 1, 8, 4],  # transposed
    5: [12, 1, 18, 4],
    6: [2, 6, 8, 9],  # a turn by 90 degrees counter-clockwise: columns become rows from the bottom
    7: [12, 6, 18, 9],
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def marked_image() -> torch.Tensor:
    """3 x 20 x 10, 1 inside the box of the table and 0 elsewhere."""
    image = torch.zeros(3, 20, 10, dtype=torch.uint8)
    image[:, 2:8, 1:4] = 1
    return image


@pytest.mark.parametrize("element", range(8))
def test_boxes_go_with_the_pixels(element):
    image = turn_image(marked_image(), element)
    boxes = turn_boxes(torch.tensor([[1.0, 2, 4, 8]]), element, (10, 20))
    assert boxes.tolist() == [BOXES[element]]
    assert image.shape == ((3, 10, 20) if element >= 4 else (3, 20, 10))
    x0, y0, x1, y1 = BOXES[element]
    assert image[:, y0:y1, x0:x1].sum() == image.sum() == 3 * 3 * 6


@pytest.mark.parametrize("element", range(8))
def test_the_inverse_brings_all_back(element):
    image, boxes = marked_image(), torch.tensor([[1.5, 2, 4, 8.25], [0, 0, 10, 20]])
    turned, moved = turn_image(image, element), turn_boxes(boxes, element, (10, 20))
    size = (turned.shape[2], turned.shape[1])
    assert torch.equal(turn_image(turned, inverse_element(element)), image)
    assert torch.equal(turn_boxes(moved, inverse_element(element), size), boxes)


@pytest.mark.parametrize("element", range(8))
def test_elements_are_those_of_whole_batches(element):
    image = torch.arange(3 * 36, dtype=torch.float32).view(3, 6, 6)
    assert torch.equal(turn_image(image, element), apply_dihedral(image[None], torch.tensor([element]))[0])


def test_no_box():
    assert turn_boxes(torch.zeros(0, 4), 7, (10, 20)).shape == (0, 4)


def test_all_eight_are_drawn_alike():
    turn, draw = RandTurn(), generator()
    boxes = torch.tensor([[1.0, 2, 4, 8]])
    found = [tuple(turn(marked_image(), boxes, draw)[1][0].tolist()) for _ in range(800)]
    counts = [found.count(tuple(float(side) for side in box)) for box in BOXES.values()]
    assert sum(counts) == 800
    assert min(counts) > 65  # 100 expected, sd 9.4


def test_probability_and_generator():
    boxes = torch.tensor([[1.0, 2, 4, 8]])
    draw, turn = generator(), RandTurn([1], probability=0.25)
    touched = sum(not torch.equal(turn(marked_image(), boxes, draw)[1], boxes) for _ in range(400))
    assert 70 < touched < 130
    one, other = (RandTurn()(marked_image(), boxes, generator(3)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_stain_jitter_leaves_boxes():
    image = torch.randint(0, 256, (3, 12, 14), generator=generator(1)).to(torch.uint8)
    boxes = torch.tensor([[1.0, 2, 4, 8]])
    jitter = RandStainJitter(0.2, 0.05, probability=1.0)
    jittered, same = ImageOnly(jitter)(image, boxes, generator(2))
    assert same is boxes
    assert torch.equal(jittered, jitter(image[None], generator(2))[0])
    assert not torch.equal(jittered, image)


def test_in_a_dataset(tmp_path):
    pixels = np.zeros((20, 10, 3), np.uint8)
    pixels[2:8, 1:4] = 1
    Image.fromarray(pixels).save(tmp_path / "a.png")
    samples = [{"image": tmp_path / "a.png", "boxes": [[1, 2, 4, 8]], "classes": ["A"], "mpp": 0.25, "id": 3}]
    dataset = NucleusDataset(samples, ["A"], transforms=[RandTurn()])
    seen = set()
    for epoch in range(40):
        dataset.set_epoch(epoch)
        item = dataset[0]
        x0, y0, x1, y1 = (int(side) for side in item["boxes"][0])
        assert item["image"][:, y0:y1, x0:x1].sum() == item["image"].sum() == 54
        seen.add((x0, y0))
    assert len(seen) == 8
    assert isinstance(dataset.table, pd.DataFrame)


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"elements must be some of 0 to 7, but are \[8\]"):
        RandTurn([8])
    with pytest.raises(ConfigError, match="probability must be between 0 and 1, but is 2"):
        RandTurn(probability=2)
    with pytest.raises(ConfigError, match="transform must be a callable on a batch, but is str"):
        ImageOnly("jitter")
