# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from tral_monai.data.generated.writer import shrink, write_pyramid


@pytest.fixture
def image() -> np.ndarray:
    smooth = np.linspace(0, 255, 700)[None, :, None] * np.ones((520, 1, 3))
    return smooth.astype(np.uint8)


def test_shrink_by_hand():
    image = np.zeros((5, 4, 3), np.uint8)
    image[:2, :2, 0] = [[1, 2], [3, 5]]  # mean 2.75
    image[2:4, 2:4, 2] = 255
    small = shrink(image, 2)
    assert small.shape == (2, 2, 3)
    assert small[0, 0].tolist() == [3, 0, 0]
    assert small[1, 1].tolist() == [0, 0, 255]


def test_openslide_sees_levels_and_mpp(tmp_path: Path, image: np.ndarray):
    write_pyramid(tmp_path / "a.tif", image, mpp=0.23, jpeg_quality=90)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.level_dimensions == ((700, 520), (175, 130), (43, 32))
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.23, rel=1e-5)
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == pytest.approx(0.23, rel=1e-5)
        pixels = np.asarray(slide.read_region((0, 0), 0, (700, 520)))[..., :3]
    assert np.abs(pixels.astype(int) - image).max() < 12  # JPEG


def test_tifffile_sees_tiles_and_mpp(tmp_path: Path, image: np.ndarray):
    write_pyramid(tmp_path / "a.tif", image, mpp=0.25, jpeg_quality=90)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.series[0].levels) == 3
        assert all(page.tile == (256, 256) and page.compression == 7 for page in tiff.pages)
        numerator, denominator = tiff.pages[0].tags["XResolution"].value
    assert 1e4 / (numerator / denominator) == pytest.approx(0.25)


def test_same_image_same_bytes_and_nothing_half_written(tmp_path: Path, image: np.ndarray):
    for name in ("a.tif", "b.tif"):
        write_pyramid(tmp_path / name, image, mpp=0.25, jpeg_quality=80)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]
