# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import pytest

from tral_monai.inference.slide_window import Rectangle
from tral_monai.label_app.joined_rectangles import joined_rectangles


def test_a_grid_becomes_one_rectangle_whatever_the_order() -> None:
    # 100 x 100 tiles of 512 px, the last column and row cut at the border of 51,000 x 50,900 px.
    across, down = range(0, 51_000, 512), range(0, 50_900, 512)
    tiles = [(x, y, min(512, 51_000 - x), min(512, 50_900 - y)) for x in across for y in down]
    random.Random(0).shuffle(tiles)
    assert len(tiles) == 10_000
    assert joined_rectangles(tiles) == [(0, 0, 51_000, 50_900)]


@pytest.mark.parametrize(
    ("rectangles", "expected"),
    [
        ([], []),
        ([(1, 2, 3, 4)], [(1, 2, 3, 4)]),
        ([(0, 0, 10, 10), (0, 0, 10, 10)], [(0, 0, 10, 10)]),
        ([(0, 0, 10, 10), (8, 0, 10, 10)], [(0, 0, 18, 10)]),  # tiles that overlap
        ([(0, 0, 10, 10), (2, 0, 3, 10)], [(0, 0, 10, 10)]),  # one inside of the other
        ([(0, 0, 10, 10), (11, 0, 10, 10)], [(0, 0, 10, 10), (11, 0, 10, 10)]),  # a gap of one pixel
        ([(0, 0, 10, 10), (10, 0, 10, 9)], [(0, 0, 10, 10), (10, 0, 10, 9)]),
        # An L: its two rows differ.
        ([(0, 0, 10, 10), (0, 10, 10, 10), (10, 10, 10, 10)], [(0, 0, 10, 10), (0, 10, 20, 10)]),
    ],
)
def test_what_is_joined(rectangles: list[Rectangle], expected: list[Rectangle]) -> None:
    assert joined_rectangles(rectangles) == expected


def test_the_same_pixels_are_covered() -> None:
    def pixels(rectangles: list[Rectangle]) -> set[tuple[int, int]]:
        return {(i, j) for x, y, w, h in rectangles for i in range(x, x + w) for j in range(y, y + h)}

    draw = random.Random(1)
    for _ in range(50):
        tiles = [(draw.randrange(6), draw.randrange(6), draw.choice((1, 2)), draw.choice((1, 2))) for _ in range(12)]
        assert pixels(joined_rectangles(tiles)) == pixels(tiles)
