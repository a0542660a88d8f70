# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tral_monai.inference.nuclei.seams import belongs, is_cut, join
from tral_monai.inference.nuclei.tile_plan import TilePlan

# Two tiles of 200 px at 0 and 100: they share 100 to 200, and their cores meet at 150. A quarter of the overlap is 25.
PLAN = TilePlan((300, 200), tile_px=200, overlap_px=100)


def boxes(*values: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
    return np.array(values, dtype=np.float32).reshape(-1, 4)


def joined(found: npt.NDArray[np.float32], tiles: list[int], scores: list[float]) -> list[bool]:
    keep = join(PLAN, found, np.array(scores, dtype=np.float32), np.array(tiles, dtype=np.int64), iou=0.5)
    return list(keep.tolist())


def test_a_box_is_cut_at_an_inner_edge_only() -> None:
    found = boxes((0, 0, 20, 20), (180, 50, 200, 70), (101, 50, 120, 70), (280, 180, 300, 200), (150, 50, 170, 70))
    assert is_cut(PLAN, found, np.array([0, 0, 1, 1, 1])).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("box", "tile", "expected"),
    [
        ((130, 50, 150, 70), 0, True),  # centre 140, in the core of tile 0
        ((130, 50, 150, 70), 1, True),  # 10 px outside of the core of tile 1, whole
        ((110, 50, 130, 70), 1, False),  # centre 120, 30 px outside
        ((160, 50, 179, 70), 0, True),  # centre 169.5
        ((160, 50, 192, 70), 0, False),  # centre 176
        ((140, 50, 199, 70), 0, False),  # centre 169.5, but cut
        ((90, 50, 200, 70), 0, True),  # cut, but with its centre (145) in the core
        ((-5, -5, 10, 10), 0, True),  # leans out of the image
        ((-15, 50, 5, 70), 0, True),  # with its centre outside: nobody else could answer for it
    ],
)
def test_which_boxes_a_tile_answers_for(box: tuple[float, float, float, float], tile: int, expected: bool) -> None:
    assert belongs(PLAN, boxes(box), np.array([tile])).tolist() == [expected]


def test_one_nucleus_seen_by_both_tiles_comes_once_from_the_core_it_lies_in() -> None:
    # Centres 145 and 146: in the core of tile 0, whose box wins although its score is lower.
    found = boxes((135, 50, 155, 70), (136, 50, 156, 70))
    assert joined(found, [0, 1], [0.6, 0.9]) == [True, False]


def test_a_nucleus_that_each_tile_sees_in_the_others_core_is_not_lost() -> None:
    found = boxes((142, 50, 162, 70), (138, 50, 158, 70))  # centres 152 from tile 0, 148 from tile 1
    assert belongs(PLAN, found, np.array([0, 1])).all()
    assert joined(found, [0, 1], [0.6, 0.9]) == [False, True]


def test_a_whole_box_wins_over_a_part_of_it() -> None:
    # Tile 0 sees the left part of a large nucleus, with the centre of that part in its core; IoU is 59 / 119.
    found = boxes((100, 50, 199, 70), (110, 50, 220, 70))
    assert belongs(PLAN, found, np.array([0, 1])).tolist() == [True, True]
    assert joined(found, [0, 1], [0.9, 0.6]) == [False, True]


def test_neighbours_that_overlap_a_little_are_two_nuclei() -> None:
    assert joined(boxes((130, 50, 152, 70), (148, 50, 170, 70)), [0, 1], [0.9, 0.9]) == [True, True]


def test_boxes_of_one_tile_do_not_exclude_each_other() -> None:
    assert joined(boxes((130, 50, 150, 70), (130, 50, 150, 70)), [0, 0], [0.9, 0.9]) == [True, True]


def test_four_tiles_that_meet_keep_one() -> None:
    plan = TilePlan((300, 300), tile_px=200, overlap_px=100)  # cores meet at (150, 150)
    found = boxes((138, 138, 158, 158), (139, 138, 159, 158), (138, 139, 158, 159), (141, 141, 161, 161))
    keep = join(plan, found, np.array([0.9, 0.9, 0.9, 0.5], dtype=np.float32), np.array([0, 1, 2, 3]), iou=0.5)
    # Centres (148, 148) and (151, 151) lie in the cores of tiles 0 and 3; the higher score wins.
    assert keep.tolist() == [True, False, False, False]


def test_no_boxes() -> None:
    assert joined(boxes(), [], []) == []
    assert belongs(PLAN, boxes(), np.empty(0, dtype=np.int64)).shape == (0,)
