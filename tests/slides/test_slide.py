# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from tests.inference.colour_slides import break_tile
from tral_monai.errors import MissingMppError, SlideOpenError, SlideReadError
from tral_monai.slides.slide import open_slide


def test_what_a_slide_tells(small_slide):
    with open_slide(small_slide) as slide:
        assert (slide.path, slide.name) == (small_slide, "small.tif")
        assert slide.dimensions == (1500, 1100)
        assert slide.level_downsamples == (1.0, 4.0, 16.0)
        assert slide.mpp == pytest.approx(0.25)
        assert slide.magnification == pytest.approx(40)
        assert slide.backend_name == "tiff"
        assert repr(slide) == "Slide('small.tif', 1500 x 1100 px, mpp=0.25, backend='tiff')"


def test_given_mpp_overrides_the_file(small_slide):
    slide = open_slide(small_slide, mpp=0.5)
    assert (slide.mpp, slide.mpp_xy, slide.magnification) == (0.5, (0.5, 0.5), 20.0)


@pytest.mark.parametrize("mpp", [0, -0.25])
def test_mpp_must_be_positive(small_slide, mpp):
    with pytest.raises(SlideOpenError, match="mpp must be a positive number"):
        open_slide(small_slide, mpp=mpp)


@pytest.mark.parametrize("backend", ["tiff", "openslide", "auto"])
def test_missing_mpp(tmp_path, write_tiff, make_texture, backend):
    path = write_tiff(tmp_path / "a.tif", [make_texture(300, 200)], mpp=None)
    with pytest.raises(MissingMppError, match=r"^a\.tif: .*open_slide\(path, mpp=0\.25\)"):
        open_slide(path, backend)
    assert open_slide(path, backend, mpp=0.5).mpp == 0.5


def test_anisotropic_pixels_are_refused(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(300, 200)])
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        position = tiff.pages[0].tags["YResolution"].valueoffset
    # 40,000 pixels per centimetre become 20,000: the numerator is a 4-byte integer.
    numerator = int.from_bytes(data[position : position + 4], "little") // 2
    path.write_bytes(data[:position] + numerator.to_bytes(4, "little") + data[position + 4 :])
    with pytest.raises(SlideOpenError, match=r"a\.tif: pixels must be square .* 0\.2500 x 0\.5000 um"):
        open_slide(path)


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_levels_magnifications_and_mpp_name_the_same_pixels(small_slide, backend):
    slide = open_slide(small_slide, backend)
    for level, magnification, mpp in ((0, 40, 0.25), (1, 10, 1.0), (2, 2.5, 4.0)):
        by_level = slide.read((160, 320), (50, 40), level=level)
        assert by_level.shape == (40, 50, 3)
        assert (slide.read((160, 320), (50, 40), magnification=magnification) == by_level).all()
        assert (slide.read((160, 320), (50, 40), mpp=mpp) == by_level).all()
    assert (slide.read((160, 320), (50, 40)) == slide.read((160, 320), (50, 40), level=0)).all()


def test_a_position_is_level0_at_every_level(small_slide):
    slide = open_slide(small_slide)
    whole = slide.read((0, 0), slide.level_dimensions[1], level=1)
    assert (slide.read((160, 320), (50, 40), level=1) == whole[80:120, 40:90]).all()
    # 161.9 / 4 = 40.5 rounds up, 161 / 4 = 40.25 down.
    assert (slide.read((162, 320), (50, 40), level=1) == whole[80:120, 41:91]).all()
    assert (slide.read((161, 320), (50, 40), level=1) == whole[80:120, 40:90]).all()


def test_outside_is_white(small_slide):
    slide = open_slide(small_slide)
    for level, (width, height) in enumerate(slide.level_dimensions):
        factor = slide.level_downsamples[level]
        region = slide.read((-10 * factor, -20 * factor), (width + 30, height + 50), level=level)
        inside = slide.read((0, 0), (width, height), level=level)
        assert (region[20 : 20 + height, 10 : 10 + width] == inside).all()
        region[20 : 20 + height, 10 : 10 + width] = 255
        assert (region == 255).all()


def discs(mpp):
    """Render two dark discs of 24 um, 120 um apart, in 320 x 160 um, as a scan of the given mpp."""
    x = ((np.arange(round(320 / mpp)) + 0.5) * mpp).astype(np.float32)
    y = ((np.arange(round(160 / mpp)) + 0.5) * mpp).astype(np.float32)
    nearer = np.minimum(np.abs(x - 100), np.abs(x - 220))
    inside = np.clip((12 - np.hypot(nearer, y[:, None] - 80)) / mpp + 0.5, 0, 1)
    return np.repeat(np.round(255 - 200 * inside).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.125, 0.2425, 0.2528])
@pytest.mark.parametrize("factors", [(1,), (1, 2, 4)])
def test_any_scan_gives_the_same_physical_field(tmp_path, write_tiff, make_levels, mpp, factors):
    levels = make_levels(discs(mpp), factors)
    slide = open_slide(write_tiff(tmp_path / "a.tif", levels, tile=128, mpp=mpp, photometric="rgb"))
    for magnification in (40.0, 10.0):
        asked_mpp = 10 / magnification
        size = (round(280 / asked_mpp), round(120 / asked_mpp))
        region = slide.read((20 / mpp, 20 / mpp), size, magnification=magnification)  # 280 x 120 um from (20, 20) um
        dark = 255 - region[..., 0].astype(float)
        labels, count = ndimage.label(dark > 100)
        assert count == 2
        centres = np.array(ndimage.center_of_mass(dark, labels, [1, 2])) + 0.5
        centres_um = centres[centres[:, 1].argsort()] * asked_mpp
        assert np.diff(centres_um[:, 1])[0] == pytest.approx(120, rel=0.01)
        # Within 1 % of the distance and half a pixel: the region starts at a whole pixel.
        assert centres_um[:, 1] == pytest.approx([80, 200], abs=2.0 + asked_mpp / 2)
        assert centres_um[:, 0] == pytest.approx([60, 60], abs=0.6 + asked_mpp / 2)
        assert dark.sum() / 200 * asked_mpp**2 == pytest.approx(2 * np.pi * 12**2, rel=0.03)


def test_thumbnail(small_slide):
    slide = open_slide(small_slide)
    thumbnail = slide.thumbnail(100)
    assert thumbnail.shape == (73, 100, 3)  # 1500 / 100 = 15 level-0 pixels per pixel; 1100 / 15 = 73.3
    assert np.abs(thumbnail.mean(axis=(0, 1)) - slide.read((0, 0), slide.dimensions).mean(axis=(0, 1))).max() < 3
    assert slide.thumbnail(5000).shape == (1100, 1500, 3)
    with pytest.raises(SlideReadError, match="max_px must be at least 1, got 0"):
        slide.thumbnail(0)


def test_a_thumbnail_is_grey_where_a_tile_does_not_decode(tmp_path, write_tiff, make_texture, make_levels):
    """One broken tile took the whole picture."""
    path = write_tiff(tmp_path / "a.tif", make_levels(make_texture(1024, 1024)))
    whole = open_slide(path).thumbnail(512)
    break_tile(path, 1, 0)  # level 1 has 256 x 256 px, which is one tile
    break_tile(path, 0, 0)  # level 0 has four by four
    slide = open_slide(path)
    with pytest.raises(SlideReadError, match="tile at level 0, column 0, row 0"):
        slide.thumbnail(1024)
    picture = slide.thumbnail(1024, missing=240)
    assert (picture[:256, :256] == 240).all()
    assert (picture[256:, 256:] != 240).any()
    assert whole.shape == (512, 512, 3)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-3, 5)])
def test_empty_size(small_slide, size):
    with pytest.raises(SlideReadError, match=r"small\.tif: size_px must be at least 1 x 1"):
        open_slide(small_slide).read((0, 0), size)


def test_one_resolution_only(small_slide):
    with pytest.raises(SlideReadError, match="one of magnification, mpp and level"):
        open_slide(small_slide).read((0, 0), (5, 5), level=0, mpp=0.25)


@pytest.mark.parametrize("level", [-1, 3])
def test_unknown_level(small_slide, level):
    with pytest.raises(SlideReadError, match=rf"has levels 0 to 2, got {level}"):
        open_slide(small_slide).read((0, 0), (5, 5), level=level)


def test_closed(small_slide):
    slide = open_slide(small_slide)
    slide.close()
    with pytest.raises(SlideReadError, match="the slide is closed"):
        slide.read((0, 0), (5, 5))


@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_pickled_slide_opens_the_file_again(small_slide, backend):
    slide = open_slide(small_slide, backend, mpp=0.5)
    copy = pickle.loads(pickle.dumps(slide))
    slide.close()
    assert (copy.mpp, copy.dimensions, copy.backend_name) == (0.5, (1500, 1100), backend)
    reference = open_slide(small_slide, backend).read((100, 100), (60, 60))
    assert (copy.read((100, 100), (60, 60)) == reference).all()


def _read_in_child(slide):
    return os.getpid(), slide.read((100, 100), (60, 60))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("backend", ["tiff", "openslide"])
def test_forked_processes_read_side_by_side(small_slide, backend):
    slide = open_slide(small_slide, backend)
    reference = slide.read((100, 100), (60, 60))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_read_in_child, [slide] * 8)
    assert os.getpid() not in {pid for pid, _ in found}
    assert all((pixels == reference).all() for _, pixels in found)
    assert (slide.read((100, 100), (60, 60)) == reference).all()
