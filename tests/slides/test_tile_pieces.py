# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.slides.tile_pieces import plan_pieces


class Source:
    """10 x 6 pixels in tiles of 4 x 4: three columns, two rows."""

    key = (0.0,)
    size = (10, 6)
    tile_size = (4, 4)

    def read_tile(self, column, row):
        return np.full((4, 4, 3), 10 * row + column, np.uint8)


def plan(starts, side, rows=None):
    starts = np.array(starts, np.int64).reshape(-1, 2)
    return plan_pieces(Source(), starts, side, np.arange(len(starts)) if rows is None else np.array(rows))


def test_pieces_of_a_window_on_four_tiles():
    found = plan([[2, 3]], 3)
    assert found.tiles == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert found.first == [0, 1, 2, 3, 4]
    # Row of the output; left, top, right, bottom in the window; left, top, right, bottom in the tile.
    assert found.pieces == [
        [0, 0, 0, 2, 1, 2, 3, 4, 4],
        [0, 2, 0, 3, 1, 0, 3, 1, 4],
        [0, 0, 1, 2, 3, 2, 0, 4, 2],
        [0, 2, 1, 3, 3, 0, 0, 1, 2],
    ]
    assert found.partial.tolist() == []


def test_windows_that_leave_the_tiles():
    found = plan([[-1, 0], [40, 0], [4, 4], [9, 3]], 4, rows=[7, 8, 9, 6])
    assert found.partial.tolist() == [7, 8, 6]
    assert found.tiles == [(0, 0), (2, 0), (1, 1), (2, 1)]
    assert [piece[0] for piece in found.pieces] == [7, 6, 9, 6]


def test_windows_on_one_tile_stand_together():
    found = plan([[0, 0], [4, 0], [1, 1], [5, 1]], 2)
    assert found.tiles == [(0, 0), (1, 0)]
    assert found.first == [0, 2, 4]
    assert [piece[0] for piece in found.pieces] == [0, 2, 1, 3]


def test_tiles_that_a_grid_does_not_come_back_to():
    quarters = [[0, 0], [2, 0], [0, 2], [2, 2]]
    assert plan(quarters, 2).tiled_once == [True]
    assert plan(quarters[:3], 2).tiled_once == [False]
    assert plan([*quarters, [1, 1]], 2).tiled_once == [False]
    assert plan([[0, 0], [4, 0], [5, 0]], 4).tiled_once == [True, False, False]  # the last window lies on two tiles


def test_copy_into_the_rows_asked_for():
    found = plan([[2, 2], [-2, -2]], 4, rows=[2, 0])
    out = np.full((3, 4, 4, 3), 77, np.uint8)
    for number, tile in enumerate(found.tiles):
        found.copy(number, Source().read_tile(*tile), out)
    assert out[2, :, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [10, 10, 11, 11], [10, 10, 11, 11]]
    assert out[0, :, :, 0].tolist() == [[77] * 4, [77] * 4, [77, 77, 0, 0], [77, 77, 0, 0]]
    assert (out[1] == 77).all()


def test_no_windows():
    assert plan([[50, 50]], 4).tiles == []
    assert plan([], 4).tiles == []
