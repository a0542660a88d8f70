# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb_from_hed

from tests.transforms.stained import stained_tiles
from tests.transforms.test_stain_profile import VECTORS
from tral_monai.errors import ConfigError
from tral_monai.transforms.stain_jitter import RandStainJitter


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_colours() -> torch.Tensor:
    """(1, 3, 1, 35937): RGB in steps of 8, black and white among them."""
    steps = torch.tensor([*range(0, 256, 8), 255])
    return torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 1, -1).to(torch.uint8)


def amounts(image: torch.Tensor) -> np.ndarray:
    """Amounts of hematoxylin, eosin and the rest per pixel, (P, 3), with scikit-image's matrix."""
    rows = rgb_from_hed / np.linalg.norm(rgb_from_hed, axis=1, keepdims=True)
    density = -np.log((image.double().flatten(1).T.numpy() + 1) / 256)
    return density @ np.linalg.inv(rows)


def test_zero_ranges_keep_every_colour() -> None:
    colours = all_colours()
    assert torch.equal(RandStainJitter(0.0, 0.0, probability=1.0)(colours, generator()), colours)
    floats = RandStainJitter(0.0, 0.0, probability=1.0)(colours.float(), generator())
    torch.testing.assert_close(floats, colours.float(), rtol=0, atol=0.01)


def test_amounts_are_scaled_and_shifted_within_the_ranges() -> None:
    tiles = stained_tiles(VECTORS, count=12, scales=1, size=32).float()
    jittered = RandStainJitter(0.2, 0.1, probability=1.0)(tiles, generator(1))
    factors, shifts = [], []
    for before, after in zip(tiles, jittered, strict=True):
        inside = (after > 0.5).all(dim=0).flatten() & (after < 254.5).all(dim=0).flatten()
        x, y = amounts(before)[inside.numpy()], amounts(after)[inside.numpy()]
        for stain in range(3):
            slope, offset = np.polyfit(x[:, stain], y[:, stain], 1)
            np.testing.assert_allclose(slope * x[:, stain] + offset, y[:, stain], atol=2e-3)
            factors.append(slope)
            shifts.append(offset)
    assert 0.8 <= min(factors) < 0.9
    assert 1.1 < max(factors) <= 1.2
    assert -0.1 - 1e-3 <= min(shifts) < -0.05
    assert 0.05 < max(shifts) <= 0.1 + 1e-3
    assert len({round(f, 4) for f in factors}) == 36  # each sample and stain has its own


def test_tiles_of_one_triplet_share_the_jitter() -> None:
    tile = stained_tiles(VECTORS, count=4, scales=1)
    triplet = tile.repeat(1, 3, 1, 1)
    jittered = RandStainJitter(probability=1.0)(triplet, generator())
    assert torch.equal(jittered[:, :3], jittered[:, 3:6])
    assert torch.equal(jittered[:, :3], jittered[:, 6:])
    assert not torch.equal(jittered, triplet)


def test_probability_and_seed() -> None:
    tiles = stained_tiles(VECTORS, count=200, scales=1, size=8)
    jitter = RandStainJitter()
    once = jitter(tiles, generator(4))
    touched = (once != tiles).flatten(1).any(dim=1)
    assert touched.float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(jitter(tiles, generator(4)), once)
    assert not torch.equal(jitter(tiles, generator(5)), once)


def test_range_and_dtype_are_kept() -> None:
    colours = all_colours().repeat(4, 3, 1, 1)
    strong = RandStainJitter(1.0, 1.0, probability=1.0)
    assert strong(colours, generator()).dtype == torch.uint8
    floats = strong(colours.float(), generator())
    assert floats.isfinite().all()
    assert floats.min() >= 0
    assert floats.max() <= 255


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scale": -0.1}, "scale must be between 0 and 1, but is -0.1"),
        ({"shift": 1.5}, "shift must be between 0 and 1"),
        ({"probability": 2}, "probability must be between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RandStainJitter(**kwargs)


def test_it_needs_a_generator() -> None:
    with pytest.raises(ConfigError, match="RandStainJitter is random"):
        RandStainJitter()(stained_tiles(VECTORS))
