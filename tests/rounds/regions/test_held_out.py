# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest

from tral_monai.rounds.regions.held_out import divide_region, held_out_regions


def test_one_of_a_few_and_about_a_fifth_of_many():
    assert held_out_regions([]) == held_out_regions([7]) == held_out_regions([7, 7]) == set()
    for seed in range(20):
        assert [len(held_out_regions(range(n), seed=seed)) for n in (2, 3, 4, 5)] == [1, 1, 1, 1]
        assert 150 < len(held_out_regions(range(1000), seed=seed)) < 250
    assert len({tuple(held_out_regions(range(10), seed=seed)) for seed in range(20)}) > 5


def test_a_region_stays_on_its_side():
    before, after = held_out_regions(range(100)), held_out_regions(range(150))
    assert {one for one in after if one < 100} == before


@pytest.mark.parametrize(
    ("columns", "trained_on", "held_out"),
    [
        (10, range(7), (8, 9)),
        (5, (0, 1, 2), (4,)),
        (3, (0,), (2,)),
        (2, (0,), (1,)),
        (1, (0,), ()),
    ],
)
@pytest.mark.parametrize("axis", ["x_level0", "y_level0"])
def test_an_end_of_the_longer_side(columns, trained_on, held_out, axis):
    other = {"x_level0": "y_level0", "y_level0": "x_level0"}[axis]
    tiles = pd.DataFrame({axis: 128 * np.arange(columns), other: 64})
    kept, val = divide_region(tiles)
    assert (kept[axis] // 128).tolist() == list(trained_on)
    assert (val[axis] // 128).tolist() == list(held_out)
