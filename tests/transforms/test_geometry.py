# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.transforms.geometry import ALL, FLIPS, ROTATIONS, RandDihedral, apply_dihedral

# What each element makes of [[1, 2], [3, 4]], by hand.
TABLE = {
    0: [[1, 2], [3, 4]],
    1: [[2, 1], [4, 3]],
    2: [[3, 4], [1, 2]],
    3: [[4, 3], [2, 1]],
    4: [[1, 3], [2, 4]],
    5: [[3, 1], [4, 2]],
    6: [[2, 4], [1, 3]],
    7: [[4, 2], [3, 1]],
}


def numbered(count: int, channels: int = 9, height: int = 16, width: int = 16) -> torch.Tensor:
    return (
        torch.arange(count * channels * height * width, dtype=torch.float32).view(count, channels, height, width) % 251
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_eight_elements() -> None:
    image = torch.tensor(TABLE[0], dtype=torch.uint8).expand(8, 1, 2, 2)
    moved = apply_dihedral(image, torch.arange(8))
    assert {e: moved[e, 0].tolist() for e in range(8)} == TABLE
    assert moved.dtype == torch.uint8


def test_rotations_turn_counter_clockwise() -> None:
    image = numbered(1)
    for quarter_turns, element in enumerate(ROTATIONS):
        expected = torch.rot90(image, quarter_turns, dims=(2, 3))
        assert torch.equal(apply_dihedral(image, torch.tensor([element])), expected)


def test_all_channels_of_a_sample_move_together_and_samples_apart() -> None:
    tile = numbered(1, channels=1)
    image = tile.expand(64, 9, 16, 16).contiguous()
    moved = RandDihedral()(image, generator())
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    seen = {tuple(sample[0].flatten().tolist()) for sample in moved}
    assert len(seen) == 8


def test_each_sample_keeps_its_pixels() -> None:
    image = numbered(16)
    moved = RandDihedral()(image, generator(3))
    assert torch.equal(moved.flatten(2).sort(dim=2).values, image.flatten(2).sort(dim=2).values)
    assert not torch.equal(moved, image)


def test_elements_are_equally_likely() -> None:
    image = torch.tensor(TABLE[0]).float().expand(8000, 3, 2, 2)
    moved = RandDihedral()(image, generator(1))
    counts = torch.tensor([int((moved[:, 0] == torch.tensor(t)).all(dim=(1, 2)).sum()) for t in TABLE.values()])
    assert counts.sum() == 8000
    assert counts.min() > 880  # 1000 expected, standard deviation 30
    assert counts.max() < 1120


def test_a_seed_gives_the_same_draws() -> None:
    image = numbered(32)
    once, again = RandDihedral()(image, generator(7)), RandDihedral()(image, generator(7))
    assert torch.equal(once, again)
    assert not torch.equal(once, RandDihedral()(image, generator(8)))


def test_probability() -> None:
    image = numbered(4000, channels=3, height=2, width=2)
    turned = RandDihedral((3,), probability=0.25)(image, generator())
    share = (turned != image).flatten(1).any(dim=1).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.03)
    assert torch.equal(RandDihedral(probability=0.0)(image, generator()), image)


def test_flips_do_not_need_square_tiles() -> None:
    image = numbered(8, height=4, width=6)
    assert RandDihedral(FLIPS)(image, generator()).shape == image.shape
    with pytest.raises(ConfigError, match=r"need square tiles, but got \[8, 9, 4, 6\]; use FLIPS"):
        RandDihedral(ALL)(image, generator())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"elements": ()}, "elements must be some of 0 to 7"),
        ({"elements": (8,)}, r"elements must be some of 0 to 7, but are \[8\]"),
        ({"probability": 1.5}, "probability must be between 0 and 1, but is 1.5"),
        ({"backend": "cupy"}, r"backend must be one of \['auto', 'torch', 'cucim'\], but is 'cupy'"),
    ],
)
def test_settings_out_of_range_are_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RandDihedral(**kwargs)  # type: ignore[arg-type]


def test_wrong_batches_and_generators_are_refused() -> None:
    with pytest.raises(ConfigError, match="RandDihedral is random: call it with a torch.Generator"):
        RandDihedral()(numbered(1))
    with pytest.raises(ConfigError, match=r"expected \(B, 3 \* scales, H, W\) RGB, but got \[1, 8, 16, 16\]"):
        RandDihedral()(numbered(1, channels=8), generator())
    with pytest.raises(ConfigError, match=r"as uint8 or float .*, but got torch\.int64"):
        RandDihedral()(numbered(1).long(), generator())
