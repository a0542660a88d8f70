# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.inference.nuclei.tile_choice import choose_tiles
from tral_monai.inference.nuclei.tile_plan import TilePlan
from tral_monai.inference.slide_window import Rectangle, SlideWindow
from tral_monai.slides.tissue import TissueMask

# Tiles start at 0, 50 and 100; their cores end at 75, 125 and 200 in x, at 100 in y.
PLAN = TilePlan((200, 100), 100, 40)
DOWNSAMPLE = 2.0
SIZE = (400, 200)


def chosen(region: Rectangle | None, mask: TissueMask | None = None) -> tuple[list[int], list[float]]:
    tiles = choose_tiles(PLAN, SlideWindow(region, SIZE), DOWNSAMPLE, mask=mask, min_coverage=0.05)
    return tiles.tiles.tolist(), tiles.areas_level0.tolist()


def test_the_plan_is_as_these_tests_say() -> None:
    assert PLAN.x_edges_px.tolist() == [0, 75, 125, 200]


def test_no_window_takes_all_tiles_with_their_whole_core() -> None:
    assert chosen(None) == ([0, 1, 2], [150 * 200, 100 * 200, 150 * 200])


@pytest.mark.parametrize(
    ("x", "tiles"),
    [
        (0, [0]),  # reaches 1.25 x 40 px x 2 = 100 px further, to 140: the next core starts at 150
        (20, [0, 1]),
        (100, [0, 1]),
        (160, [0, 1, 2]),
        (360, [2]),
    ],
)
def test_tiles_around_the_window_are_looked_at_too(x: int, tiles: list[int]) -> None:
    assert chosen((x, 50, 40, 40))[0] == tiles


def test_the_area_is_that_of_the_window() -> None:
    assert chosen((140, 50, 40, 40)) == ([0, 1, 2], [10 * 40, 30 * 40, 0])


def test_only_tissue_counts() -> None:
    tissue = np.zeros((10, 20), dtype=bool)
    tissue[:, :8] = True  # up to x = 160 of 400
    mask = TissueMask(tissue, mpp=8.0, downsample_level0=20.0)
    assert chosen(None, mask) == ([0, 1], [28000, 4000])  # the pixel around x = 150 belongs to the core of its middle
    assert chosen((100, 0, 60, 100), mask) == ([0, 1], [40 * 100, 20 * 100])
    assert chosen((380, 0, 20, 100), mask) == ([], [])
