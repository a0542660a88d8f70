# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os

import imagecodecs
import numpy as np
import pytest
import tifffile

from tests.inference.damaged_slides import hollow_out
from tral_monai.errors import SlideOpenError, SlideReadError
from tral_monai.slides.slide import open_slide


def whole(slide, level=0):
    return slide.read((0, 0), slide.level_dimensions[level], level=level)


def test_jpeg_tiles_as_openslide_reads_them(small_slide):
    direct, reference = open_slide(small_slide, "tiff"), open_slide(small_slide, "openslide")
    assert direct.level_dimensions == reference.level_dimensions
    for level in range(3):
        assert (whole(direct, level) == whole(reference, level)).all()


@pytest.mark.parametrize("coding", ["jpeg/rgb", "jpeg/ycc", "jpeg2000/rgb"])
def test_aperio_as_openslide_reads_it(tmp_path, write_svs, make_texture, make_levels, coding):
    levels = make_levels(make_texture(700, 500))
    path = write_svs(tmp_path / "a.svs", levels, coding=coding)
    direct, reference = open_slide(path, "tiff"), open_slide(path, "openslide")
    assert direct.backend_name == "tiff"
    assert direct.mpp == reference.mpp == 0.25
    for level in range(3):
        assert (whole(direct, level) == whole(reference, level)).all()
    assert np.abs(whole(direct).astype(int) - levels[0]).mean() < 5


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "predictor": True}])
def test_lossless_tiles_come_back_exactly(tmp_path, write_tiff, make_texture, make_levels, options):
    levels = make_levels(make_texture(300, 200), (1, 2))
    path = write_tiff(tmp_path / "a.tif", levels, tile=64, photometric="rgb", **options)
    slide = open_slide(path, "tiff")
    assert [(whole(slide, level) == levels[level]).all() for level in range(2)] == [True, True]


@pytest.mark.parametrize("codec", ["jpeg2000", "webp", "zstd"])
def test_codecs_that_openslide_lacks(tmp_path, make_texture, codec):
    pixels = make_texture(300, 200)
    path = tmp_path / "a.tif"
    arguments = {"level": 0} if codec == "jpeg2000" else {"lossless": True} if codec == "webp" else {}
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", compression=codec, compressionargs=arguments, metadata=None
    )
    assert (whole(open_slide(path, "tiff", mpp=0.5)) == pixels).all()


@pytest.mark.parametrize(("first", "last"), [(0.5, 1.0), (0.4, 0.8)])
def test_a_tile_that_was_not_written_whole_is_no_grey_tile(tmp_path, small_slide, first, last):
    """libjpeg decodes both without a word, and fills with grey what is missing."""
    path = tmp_path / "bad.tif"
    path.write_bytes(small_slide.read_bytes())
    hollow_out(path, 0, 8, first=first, last=last)  # column 2, row 1 of 6 columns
    direct, good = open_slide(path, "tiff").backend, open_slide(small_slide, "tiff").backend
    with pytest.raises(SlideReadError, match=r"column 2, row 1 \(x 512, y 256 at level 0\) cannot be decoded: .* zero"):
        direct.read_tile(0, 2, 1)
    assert (direct.read_tile(0, 3, 1) == good.read_tile(0, 3, 1)).all()


@pytest.mark.skipif(not hasattr(os, "pread"), reason="Windows reads another way")
def test_a_share_that_is_gone_is_no_damaged_tile(small_slide, monkeypatch):
    direct = open_slide(small_slide, "tiff").backend

    def gone(*arguments):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "pread", gone)
    with pytest.raises(SlideOpenError, match=r"no longer be read \(Stale file handle\); check the disk or the network"):
        direct.read_tile(0, 0, 0)


def test_tiles_left_out_are_white(tmp_path, write_tiff, make_texture):
    path = write_tiff(tmp_path / "a.tif", [make_texture(700, 500)], empty=frozenset({1}))
    direct, reference = whole(open_slide(path, "tiff")), whole(open_slide(path, "openslide"))
    assert (direct[:256, 256:512] == 255).all()
    assert (direct == reference).all()


def test_edge_tiles_cut_to_what_is_visible(tmp_path, make_texture):
    pixels = make_texture(100, 90)
    cut = [pixels[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    coded = [imagecodecs.jpeg8_encode(np.ascontiguousarray(part), level=95, outcolorspace="YCBCR") for part in cut]
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        iter(coded),
        shape=pixels.shape,
        dtype=np.uint8,
        tile=(64, 64),
        compression=7,
        photometric="ycbcr",
        subsampling=(2, 2),
        metadata=None,
    )
    read = open_slide(path, "tiff", mpp=0.25).read((0, 0), (128, 128))
    assert np.abs(read[:90, :100].astype(int) - pixels).mean() < 5
    assert (read[90:] == 255).all()
    assert (read[:, 100:] == 255).all()


def test_damaged_tile_is_named_with_its_place(tmp_path, small_slide):
    with tifffile.TiffFile(small_slide) as tiff:
        page = tiff.pages[1]
        position, count = page.dataoffsets[3], page.databytecounts[3]
    data = bytearray(small_slide.read_bytes())
    data[position : position + count] = bytes(count)
    path = tmp_path / "bad.tif"
    path.write_bytes(data)
    slide = open_slide(path)
    assert slide.read((0, 0), (200, 200), level=1).shape == (200, 200, 3)
    with pytest.raises(
        SlideReadError, match=r"bad\.tif: tile at level 1, column 1, row 1 \(x 1024, y 1024 at level 0\)"
    ):
        slide.read((1100, 1050), (8, 8), level=1)


def test_file_cut_short_while_open(tmp_path, small_slide):
    path = tmp_path / "shrinks.tif"
    path.write_bytes(small_slide.read_bytes())
    slide = open_slide(path)
    path.write_bytes(small_slide.read_bytes()[:5000])
    with pytest.raises(SlideReadError, match=r"shrinks\.tif: tile at level 0, .* bytes are left in the file"):
        slide.read((1200, 900), (128, 128))


@pytest.mark.parametrize(("name", "mpp"), [("cmu-1-small-region.svs", None), ("tcga-cr-7395-ts1.svs", 0.5)])
def test_real_svs_as_openslide_reads_it(tral_data, name, mpp):
    path = tral_data / "slides" / name
    direct, reference = open_slide(path, "tiff", mpp), open_slide(path, "openslide", mpp)
    assert (whole(direct) == whole(reference)).all()
    assert direct.mpp == reference.mpp
