# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.slides.backend import WHITE, read_window


class Numbered:
    """A source of 10 x 6 pixels in tiles of 4 x 3 whose pixel (x, y) has the value 10 * y + x."""

    key = (0.0,)
    size = (10, 6)
    tile_size = (4, 3)

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []

    def read_tile(self, column, row):
        self.read.append((column, row))
        x, y = np.arange(4) + 4 * column, np.arange(3) + 3 * row
        values = np.where((x < 10) & (y[:, None] < 6), 10 * y[:, None] + x, WHITE)
        return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def test_window_over_four_tiles():
    source = Numbered()
    window = read_window(source, 3, 2, 2, 2)
    assert window[..., 0].tolist() == [[23, 24], [33, 34]]
    assert source.read == [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (-1, -1, [[255, 255, 255], [255, 0, 1]]),
        (8, 4, [[48, 49, 255], [58, 59, 255]]),
        (-9, 0, [[255, 255, 255], [255, 255, 255]]),
        (0, 6, [[255, 255, 255], [255, 255, 255]]),
        (10, -5, [[255, 255, 255], [255, 255, 255]]),
    ],
)
def test_outside_is_white(x, y, expected):
    assert read_window(Numbered(), x, y, 3, 2)[..., 0].tolist() == expected


def test_outside_reads_nothing():
    source = Numbered()
    read_window(source, 10, 0, 5, 5)
    read_window(source, -5, 0, 5, 5)
    assert source.read == []


def test_known_tiles_are_not_decoded_again():
    source = Numbered()
    known = np.full((3, 4, 3), 7, np.uint8)
    window = read_window(source, 3, 0, 2, 1, tile=lambda column, row: known if column == 0 else None)
    assert window[..., 0].tolist() == [[7, 4]]
    assert source.read == [(1, 0)]
