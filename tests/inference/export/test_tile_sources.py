# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tests.inference.colour_slides import COLOURS, PATTERN, slide_pixels, write_slide
from tral_monai.errors import ConfigError, MissingMppError, SlideError
from tral_monai.inference.export.tile_sources import drawn_tiles, tissue_tiles


def test_drawn_tiles_look_like_something_and_come_back_the_same():
    tiles = drawn_tiles(4, magnifications=(40.0, 2.5), tile_px=64, seed=3)
    assert tiles.shape == (4, 6, 64, 64)
    assert tiles.dtype == np.uint8
    assert (tiles[:-1].std(axis=(1, 2, 3)) > 5).all()
    assert (tiles[-1] == 245).all()  # glass
    assert (tiles == drawn_tiles(4, magnifications=(40.0, 2.5), tile_px=64, seed=3)).all()
    assert not (tiles[0] == drawn_tiles(4, magnifications=(40.0, 2.5), tile_px=64, seed=4)[0]).all()


def test_no_tile():
    with pytest.raises(ConfigError, match="must be at least 1, but is 0"):
        drawn_tiles(0, magnifications=(40.0,), tile_px=64, seed=0)


def test_tiles_of_tissue_only(tmp_path):
    slide = write_slide(tmp_path / "slide.tif", slide_pixels())
    tiles = tissue_tiles(slide, 500, magnifications=(40.0,), tile_px=128, seed=0)
    # One tile per cell of the pattern; a few at the edge are glass, since the mask is coarser than a tile.
    tissue = sum(row.count(key) for row in PATTERN for key in "SMB")
    means = tiles.mean(axis=(2, 3))
    shown = [min(COLOURS, key=lambda key: np.abs(mean - COLOURS[key]).sum()) for mean in means]
    assert sum(key != "." for key in shown) == tissue
    assert shown.count("B") == sum(row.count("B") for row in PATTERN)
    few = tissue_tiles(slide, 5, magnifications=(40.0, 10.0), tile_px=128, seed=0)
    assert few.shape == (5, 6, 128, 128)


def test_a_slide_of_glass(tmp_path):
    slide = write_slide(tmp_path / "glass.tif", np.full((1024, 1024, 3), 253, np.uint8))
    with pytest.raises(SlideError, match=r"glass.tif.*no tissue"):
        tissue_tiles(slide, 5, magnifications=(40.0,), tile_px=128, seed=0)


def test_a_slide_without_mpp(tmp_path):
    slide = write_slide(tmp_path / "slide.tif", slide_pixels(), mpp=None)
    with pytest.raises(MissingMppError):
        tissue_tiles(slide, 5, magnifications=(40.0,), tile_px=128, seed=0)
    assert len(tissue_tiles(slide, 5, magnifications=(40.0,), tile_px=128, mpp=0.25, seed=0)) == 5
