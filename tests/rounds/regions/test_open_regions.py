# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest

from tral_monai.rounds.regions.open_regions import BOX, fair_part, open_regions, regions_of, turns
from tral_monai.rounds.regions.region import Region


def table(slide="a.tif", n=4, purpose="train"):
    """Squares of 100 px in a row."""
    rows = [(slide, 100 * i, 0, 100, 100, purpose) for i in range(n)]
    return pd.DataFrame(rows, columns=["slide", *BOX, "purpose"])


@pytest.mark.parametrize(
    ("box", "left"),
    [
        ((100, 0, 100, 100), [0, 200, 300]),  # the very same
        ((26, 0, 100, 100), [200, 300]),  # 74 % of the first and 26 % of the second
        ((75, 0, 50, 100), [0, 100, 200, 300]),  # a quarter of two, which may be
        ((0, 200, 400, 100), [0, 100, 200, 300]),  # beside them
    ],
)
def test_what_was_asked_or_answered_is_not_asked_again(box, left):
    found = open_regions(table(), [(Region("a.tif", *box), "train")])
    assert found["x_level0"].tolist() == left


def test_regions_of_other_slides_do_not_count():
    assert len(open_regions(table(), [(Region("b.tif", 0, 0, 400, 100), "train")])) == 4


def test_several_regions_together_may_cover_too_much():
    taken = [(Region("a.tif", 0, 0, 20, 100), "train"), (Region("a.tif", 80, 0, 20, 100), "train")]
    assert open_regions(table(), taken)["x_level0"].tolist() == [100, 200, 300]


def test_a_region_that_touches_the_other_purpose_is_left_out():
    assert open_regions(table(), [(Region("a.tif", 95, 0, 10, 100), "val")])["x_level0"].tolist() == [200, 300]


def test_a_fair_part_takes_as_many_from_each_slide():
    candidates = pd.concat([table("a.tif", 50), table("b.tif", 3), table("c.tif", 50)], ignore_index=True)
    part = fair_part(candidates, 13, np.random.default_rng(0))
    assert part["slide"].value_counts().to_dict() == {"a.tif": 5, "b.tif": 3, "c.tif": 5}
    assert not part.duplicated().any()
    again = fair_part(candidates, 13, np.random.default_rng(0))
    pd.testing.assert_frame_equal(part, again)
    assert not part.equals(fair_part(candidates, 13, np.random.default_rng(1)))
    assert len(fair_part(candidates, None, np.random.default_rng(0))) == 103


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [([5, 5, 5], 4, [2, 1, 1]), ([1, 5], 4, [1, 3]), ([2, 1], 9, [2, 1]), ([0, 3], 2, [0, 2]), ([], 3, [])],
)
def test_turns(counts, n, expected):
    assert turns(counts, n).tolist() == expected


def test_rows_as_regions():
    assert regions_of(table(n=2)) == [Region("a.tif", 0, 0, 100, 100), Region("a.tif", 100, 0, 100, 100)]
