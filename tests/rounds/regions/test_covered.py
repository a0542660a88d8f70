# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from tral_monai.rounds.regions.covered import covered_answers
from tral_monai.rounds.regions.region import Purpose, Region, RegionAnswer


def answer(x: int, y: int, width: int, height: int, *, slide: str = "a.tif", side: Purpose = "train") -> RegionAnswer:
    return RegionAnswer(Region(slide, x, y, width, height), side)


def test_a_region_in_a_larger_one_of_the_same_slide_and_purpose_is_covered() -> None:
    large, inside = answer(0, 0, 1000, 1000), answer(100, 100, 200, 200)
    others = [answer(100, 100, 200, 200, slide="b.tif"), answer(100, 150, 200, 200, side="val")]
    assert covered_answers([large, inside, *others]) == {inside.region.id}
    assert covered_answers([]) == set()


def test_one_percent_may_stick_out() -> None:
    large = answer(0, 0, 1000, 1000)
    enough, too_little = answer(-2, 0, 200, 200), answer(-3, 0, 200, 200)
    assert covered_answers([large, enough, too_little]) == {enough.region.id}


def test_of_regions_that_cover_each_other_one_stays() -> None:
    row = [answer(0, 0, 1000, 100), answer(1, 0, 1000, 100), answer(2, 0, 1000, 100)]
    covered = covered_answers(row)
    assert covered == {one.region.id for one in row} - {max(one.region.id for one in row)}
