# SPDX-License-Identifier: Apache-2.0
"""All samples, then all again."""

from __future__ import annotations

import pytest
import torch

from tral_monai.data.nuclei.pass_sampler import PassSampler
from tral_monai.errors import ConfigError


def drawn(samples: int, num_samples: int, seed: int = 0) -> list[tuple[int, int]]:
    return list(PassSampler(range(samples), num_samples, torch.Generator().manual_seed(seed)))


def test_every_sample_comes_once_before_any_comes_again():
    epoch = drawn(3, 8)
    assert [number for _, number in epoch] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert sorted(position for position, number in epoch if number == 0) == [0, 1, 2]
    assert sorted(position for position, number in epoch if number == 1) == [0, 1, 2]
    assert len({position for position, number in epoch if number == 2}) == 2


def test_an_epoch_shorter_than_the_data_takes_a_part_of_them():
    assert len({position for position, _ in drawn(10, 4)}) == 4


def test_the_seed_decides_and_the_next_epoch_differs():
    assert drawn(20, 20) == drawn(20, 20)
    assert drawn(20, 20) != drawn(20, 20, seed=1)
    sampler = PassSampler(range(20), 20, torch.Generator().manual_seed(0))
    assert list(sampler) != list(sampler)
    assert len(sampler) == 20


@pytest.mark.parametrize(("samples", "num_samples"), [(0, 4), (3, 0)])
def test_nothing_to_draw(samples, num_samples):
    with pytest.raises(ConfigError, match=f"an epoch of {num_samples} samples cannot be drawn from {samples}"):
        drawn(samples, num_samples)
