# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError
from tral_monai.transforms import RandStainJitter
from tral_monai.transforms.views import NOISE_LEVELS, View, add_noise, cald_views

SIZE = (100, 60)


def picture(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, SIZE[1], SIZE[0]), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_the_four_views():
    flip, turned, small, stained = (view.image(picture()) for view in cald_views())
    assert [view.name for view in cald_views()] == ["flip", "rot90", "resize", "stain"]
    assert torch.equal(flip, picture().flip(2))
    assert torch.equal(turned, torch.rot90(picture(), 1, (1, 2)))
    assert small.shape == (3, 48, 80)
    assert stained.shape == picture().shape
    assert not torch.equal(stained, picture())
    assert all(image.dtype == torch.uint8 for image in (flip, turned, small, stained))


@pytest.mark.parametrize(
    ("name", "in_view", "in_reference"),
    [
        ("flip", [10, 20, 30, 50], [70, 20, 90, 50]),
        # The view is 60 wide and 100 high. Its top is the right edge of the reference, its left edge the top.
        ("rot90", [0, 10, 20, 40], [60, 0, 90, 20]),
        ("resize", [8, 16, 40, 48], [10, 20, 50, 60]),
        ("stain", [10, 20, 30, 50], [10, 20, 30, 50]),
    ],
)
def test_boxes_come_back(name, in_view, in_reference):
    view = next(view for view in cald_views() if view.name == name)
    back = view.boxes_to_reference(np.array([in_view], np.float32), SIZE)
    assert back.dtype == np.float32
    assert back.tolist() == [pytest.approx(in_reference)]
    assert view.boxes_to_reference(np.zeros((0, 4)), SIZE).shape == (0, 4)


@pytest.mark.parametrize("scale", [1.0, 0.8, 1.37])
@pytest.mark.parametrize("element", range(8))
def test_a_marked_box_is_found_where_it_was(element, scale):
    image = torch.zeros(3, SIZE[1], SIZE[0], dtype=torch.uint8)
    image[:, 20:40, 10:50] = 255
    seen = View("v", element=element, scale=scale).image(image)[0].numpy() > 127
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    found = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
    back = View("v", element=element, scale=scale).boxes_to_reference(found, SIZE)
    assert np.abs(back - [10, 20, 50, 40]).max() <= (0 if scale == 1 else 1)


def test_a_size_that_does_not_divide():
    # 0.8 of 99 is 79.2: the view has 79 columns, so its right edge is 99 again and not 98.75.
    view = View("small", scale=0.8)
    assert view.image(torch.zeros(3, 99, 99, dtype=torch.uint8)).shape == (3, 79, 79)
    assert view.boxes_to_reference(np.array([[0.0, 0, 79, 79]]), (99, 99)).tolist() == [pytest.approx([0, 0, 99, 99])]


def test_views_depend_on_the_image_alone():
    view = View("stain", stain=RandStainJitter(0.2, 0.05, probability=1.0), seed=4)
    first = view.image(picture())
    view.image(picture(1))
    assert torch.equal(view.image(picture()), first)
    assert torch.equal(pickle.loads(pickle.dumps(view)).image(picture()), first)
    assert not torch.equal(
        View("stain", stain=RandStainJitter(0.2, 0.05, probability=1.0), seed=5).image(picture()), first
    )


def test_detections_of_many_images_come_back():
    boxes = np.array([[10, 20, 30, 50], [0, 0, 5, 5], [10, 20, 30, 50]], np.float32)
    found = Detections(
        offsets=[0, 1, 1, 3], boxes_px=boxes, labels=[0, 0, 1], scores=np.ones(3), proposals_px=boxes + 1
    )
    sizes = np.array([[100, 60], [100, 60], [50, 60]])
    back = View("flip", element=1).detections_to_reference(found, sizes)
    assert back.boxes_px.tolist() == [[70, 20, 90, 50], [45, 0, 50, 5], [20, 20, 40, 50]]
    assert back.proposals_px.tolist() == [[69, 21, 89, 51], [44, 1, 49, 6], [19, 21, 39, 51]]
    assert found.boxes_px[0].tolist() == [10, 20, 30, 50]
    assert View("flip", element=1).detections_to_reference(back, sizes).boxes_px.tolist() == boxes.tolist()
    with pytest.raises(ConfigError, match="view 'flip': 3 images have detections, but 2 a size"):
        View("flip", element=1).detections_to_reference(found, sizes[:2])


def test_views_out_of_range():
    with pytest.raises(ConfigError, match="view 'v': element must be 0 to 7, but is 8"):
        View("v", element=8)
    with pytest.raises(ConfigError, match="view 'v': scale must be from 0.1 to 10, but is 0"):
        View("v", scale=0)


def test_noise_has_the_stated_strength_and_is_the_same_for_the_same_fov():
    grey = torch.full((3, 100, 100), 128, dtype=torch.uint8)
    assert NOISE_LEVELS == (8, 16, 24, 32, 40, 48)
    for sd in NOISE_LEVELS[:4]:  # beyond that, clipping at 0 and 255 takes from it
        noise = add_noise(grey, sd, fov_id=3).float() - 128
        assert abs(float(noise.std()) - sd) < 0.03 * sd
        assert abs(float(noise.mean())) < 0.03 * sd
    first = add_noise(grey, 8, fov_id=3)
    assert first.dtype == torch.uint8
    assert torch.equal(add_noise(grey, 8, fov_id=3), first)
    others = [add_noise(grey, 8, fov_id=4), add_noise(grey, 8, fov_id=3, seed=1), add_noise(grey, 16, fov_id=3)]
    assert all(not torch.equal(other, first) for other in others)
    assert torch.equal(add_noise(grey, 0, fov_id=3), grey)
    # Another level is another draw, not the same noise made stronger.
    weak, strong = ((add_noise(grey, sd, fov_id=3).float() - 128).flatten() for sd in (8, 16))
    assert abs(float(torch.corrcoef(torch.stack([weak, strong]))[0, 1])) < 0.05
    with pytest.raises(ConfigError, match="sd must be 0 or more grey levels, but is -1"):
        add_noise(grey, -1, fov_id=0)
