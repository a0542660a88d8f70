# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.errors import ConfigError


def all_centres(dimensions, mpp, stride_px=128):
    grid = TileGrid(dimensions, mpp, stride_px)
    return grid.centres(*np.indices(grid.shape).reshape(2, -1))


def test_centres_at_40x_row_by_row():
    assert all_centres((300, 200), 0.25).tolist() == [[64, 64], [192, 64], [64, 192], [192, 192]]


@pytest.mark.parametrize(
    ("mpp", "expected"),
    [
        (0.5, [32, 96, 160, 224, 288]),  # a tile of 128 px at 40x is 64 px of a 20x scan
        (0.125, [128]),  # and 256 px of an 80x scan; the next centre would be 384
        (0.3, [53, 160, 267]),  # tiles of 106.67 px: centres 53.33, 160, 266.67
    ],
)
def test_the_grid_has_the_same_physical_step_on_every_scan(mpp, expected):
    assert all_centres((300, 1000), mpp)[: len(expected), 0].tolist() == expected
    assert TileGrid((300, 1000), mpp).shape[1] == len(expected)


def test_smaller_strides_share_the_tiles_size_and_anchor():
    assert all_centres((300, 128), 0.25, stride_px=64)[:, 0].tolist() == [64, 128, 192, 256]
    assert TileGrid((300, 128), 0.25, 64).tile_level0 == 128.0


@pytest.mark.parametrize(
    ("width", "columns"), [(63, 0), (64, 0), (65, 1), (128, 1), (192, 1), (193, 2), (9984, 78), (9985, 78)]
)
def test_a_tile_counts_if_its_centre_lies_on_the_slide(width, columns):
    assert TileGrid((width, 500), 0.25).shape == (4, columns)


def test_every_centre_is_a_pixel_of_the_slide():
    for width in range(50, 400, 7):
        for mpp in (0.2427, 0.25, 0.4991):
            centres = all_centres((width, width), mpp)
            assert (centres < width).all()
            assert centres.dtype == np.int64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TileGrid((0, 10), 0.25), r"slide with an area, but its dimensions are \(0, 10\)"),
        (lambda: TileGrid((10, 10), 0.0), "mpp must be a positive number .* but is 0.0"),
        (lambda: TileGrid((10, 10), 0.25, 0), "stride_px must be at least 1, but is 0"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
