# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.slides.backend import read_window
from tral_monai.slides.resample import ResampledTiles


class Plane:
    """Pixels in memory as a source in tiles of 32 px."""

    key = (0.0,)
    tile_size = (32, 32)

    def __init__(self, pixels):
        self.pixels = pixels
        self.size = (pixels.shape[1], pixels.shape[0])

    def read_tile(self, column, row):
        out = np.full((32, 32, 3), 255, np.uint8)
        part = self.pixels[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        out[: part.shape[0], : part.shape[1]] = part
        return out


def step(width, height, at):
    """Black up to column `at`, 200 from there on."""
    return np.broadcast_to(np.where(np.arange(width) < at, 0, 200).astype(np.uint8)[:, None], (height, width, 3)).copy()


def test_position_of_a_pixel_is_kept():
    # Column 999 of the source is the left edge of output pixel 333, so the step lies between pixels 332 and 333.
    source = ResampledTiles(Plane(step(2000, 60, 999)), 3.0)
    assert source.size == (667, 20)
    row = read_window(source, 310, 8, 50, 1)[0, :, 0].astype(int)
    assert (row[:21] == 0).all()
    assert (row[25:] == 200).all()
    assert row[22] + row[23] == 200
    assert row[22] < 40


def test_enlarging_is_bilinear():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 100
    row = read_window(ResampledTiles(Plane(pixels), 0.5), 2, 3, 4, 1)[0, :, 0]
    assert row.tolist() == [0, 25, 75, 100]


def test_flat_stays_flat_and_the_outside_white():
    source = ResampledTiles(Plane(np.full((640, 640, 3), 90, np.uint8)), 2.5)
    window = read_window(source, 200, 100, 100, 10)
    assert (window[:, :55] == 90).all()
    assert (window[:, 56:] == 255).all()


@pytest.mark.parametrize("ratio", [0.5, 1.031, 2.0, 4.124, 40.0])
def test_a_pixel_depends_on_its_place_only(ratio):
    noise = np.random.default_rng(3).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    source = ResampledTiles(Plane(noise), ratio)
    width, height = (min(side, 300) for side in source.size)
    whole = read_window(source, 0, 0, width, height)
    x, y = width // 3, height // 2
    assert (read_window(source, x, y, width - x, height - y) == whole[y:, x:]).all()


def test_inner_tiles_are_those_that_are_read():
    plane = Plane(step(1000, 300, 500))
    source = ResampledTiles(plane, 1.5)
    read = []

    def lookup(column, row):
        read.append((column, row))

    source.read_tile(1, 0, tile=lookup)
    assert sorted(read) == sorted(source.inner_tiles(1, 0))
    # Columns 1 * 256 * 1.5 - 3 = 381 to 2 * 256 * 1.5 + 3 = 771: tiles 11 to 24; all rows: 0 to 9.
    assert {column for column, _ in read} == set(range(11, 25))
    assert {row for _, row in read} == set(range(10))


@pytest.mark.parametrize(("ratio", "side"), [(1.5, 256), (8.0, 256), (9.0, 128), (64.0, 32), (5000.0, 1)])
def test_coarse_views_work_in_small_tiles(ratio, side):
    assert ResampledTiles(Plane(step(64, 64, 32)), ratio).tile_size == (side, side)
