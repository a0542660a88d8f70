# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tests.inference.colour_slides import break_tile
from tral_monai.errors import SlideOpenError, SlideReadError
from tral_monai.slides.openslide_backend import OpenSlideBackend
from tral_monai.slides.slide import open_slide


def test_pixels_and_mpp_as_openslide_gives_them(small_slide):
    backend = OpenSlideBackend(small_slide)
    assert backend.mpp_xy == pytest.approx((0.25, 0.25))
    assert backend.tile_size(0) == (256, 256)
    out = backend.read_tile(1, 1, 0)
    with openslide.OpenSlide(small_slide) as slide:
        reference = np.asarray(slide.read_region((1024, 0), 1, (119, 256)))
    assert (out[:, :119] == reference[..., :3]).all()
    assert (out[:, 119:] == 255).all()


def test_transparency_is_laid_on_white(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(600, 300)], empty=frozenset({1}))
    assert (OpenSlideBackend(path).read_tile(0, 1, 0) == 255).all()


def test_missing_mpp_is_none(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(300, 300)], mpp=None)
    assert OpenSlideBackend(path).mpp_xy is None


def test_dpi_of_a_graphics_program_is_no_mpp(tmp_path, make_texture, write_tiff):
    path = write_tiff(tmp_path / "a.tif", [make_texture(300, 300)], mpp=25400 / 72)
    with openslide.OpenSlide(path) as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(352.8, rel=1e-3)
    assert OpenSlideBackend(path).mpp_xy is None


def test_not_a_slide(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (50, 50)).save(path)
    with pytest.raises(SlideOpenError, match=r"a\.png: not a slide format"):
        OpenSlideBackend(path)


def test_damaged_tile_is_named_with_its_place(tmp_path, small_slide):
    with tifffile.TiffFile(small_slide) as tiff:
        page = tiff.pages[0]
        position, count = page.dataoffsets[8], page.databytecounts[8]  # column 2, row 1 of 6 columns
    data = bytearray(small_slide.read_bytes())
    data[position : position + count] = bytes(count)
    path = tmp_path / "bad.tif"
    path.write_bytes(data)
    backend = OpenSlideBackend(path)
    with pytest.raises(SlideReadError, match=r"bad\.tif: region at x 512, y 256 \(level 0\), 256 x 256 px at level 0"):
        backend.read_tile(0, 2, 1)


def columns_and_rows(backend):
    width, height = backend.level_dimensions[0]
    return [(column, row) for row in range(-(-height // 256)) for column in range(-(-width // 256))]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_damaged_region_costs_no_other(tmp_path, small_slide, threads):
    """OpenSlide's handle stays in its error: after one bad region every later one failed."""
    path = tmp_path / "bad.tif"
    path.write_bytes(small_slide.read_bytes())
    break_tile(path, 0, 8)  # column 2, row 1 of 6 columns
    backend, good = OpenSlideBackend(path), OpenSlideBackend(small_slide)

    def read(place):
        try:
            return backend.read_tile(0, *place)
        except SlideReadError as error:
            return str(error)

    places = columns_and_rows(good) * 2
    with ThreadPoolExecutor(threads) as pool:
        tiles = dict(zip(places, pool.map(read, places), strict=True))
    assert [place for place, tile in tiles.items() if isinstance(tile, str)] == [(2, 1)]
    assert "x 512, y 256 (level 0)" in tiles[2, 1]
    for place, tile in tiles.items():
        if place != (2, 1):
            assert (tile == good.read_tile(0, *place)).all()


def test_a_file_that_is_gone_is_no_damaged_region(tmp_path, small_slide):
    path = tmp_path / "bad.tif"
    path.write_bytes(small_slide.read_bytes())
    break_tile(path, 0, 8)
    backend = OpenSlideBackend(path)
    path.unlink()
    with pytest.raises(SlideOpenError, match=r"bad\.tif: the file can no longer be opened .*check the disk"):
        backend.read_tile(0, 2, 1)


def test_a_closed_slide_is_not_opened_again(small_slide):
    backend = OpenSlideBackend(small_slide)
    backend.close()
    with pytest.raises(ctypes.ArgumentError, match="closed slide"):
        backend.read_tile(0, 0, 0)


def test_level_whose_factor_is_no_integer_is_at_the_right_place(tmp_path, write_svs, make_texture):
    # 1401 / 700 = 2.0014: OpenSlide takes positions in whole level-0 pixels and blends in between, half of one at most.
    pixels = make_texture(1401, 1001)
    path = write_svs(tmp_path / "a.svs", [pixels, pixels[:1000:2, :1400:2]])
    size = (700, 500)
    blended = open_slide(path, "openslide").read((0, 0), size, level=1).astype(int)
    exact = open_slide(path, "tiff").read((0, 0), size, level=1)
    difference = np.abs(blended - exact).mean()
    a_pixel_off = np.abs(blended[:, 1:] - exact[:, :-1]).mean()
    assert difference < 0.2 * a_pixel_off
