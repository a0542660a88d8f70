# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from tral_monai.data.nuclei.fov_table import fov_size_px
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides import open_slide


def row(image, left=0, top=0, width=100, height=80, mpp=0.25, fov_mpp=0.25):
    places = {"left_px": left, "top_px": top, "width_px": width, "height_px": height}
    return {"field": "f", "image": str(image), "mpp": mpp, "fov_mpp": fov_mpp, **places}


def test_a_window_of_a_plain_image(gradient):
    pixels = FovReader().read(row(gradient(), 10, 20, 30, 40))
    assert pixels.shape == (40, 30, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [10, 20, 7]
    assert pixels[39, 29].tolist() == [39, 59, 7]


def test_white_outside(gradient):
    pixels = FovReader().read(row(gradient(), 90, -5, 20, 10))
    assert (pixels[:5] == 255).all()
    assert (pixels[:, 10:] == 255).all()
    assert pixels[5, 0].tolist() == [90, 0, 7]
    assert (FovReader().read(row(gradient(), 200, 200, 20, 10)) == 255).all()


def test_reduction_averages(tmp_path):
    # A checkerboard of single pixels is grey at half the resolution; without a filter it would stay black and white.
    y, x = np.mgrid[:64, :64]
    board = np.repeat((((x + y) % 2) * 200).astype(np.uint8)[..., None], 3, 2)
    Image.fromarray(board).save(tmp_path / "board.png")
    pixels = FovReader().read(row(tmp_path / "board.png", 16, 16, 32, 32, fov_mpp=0.5))
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - 100).max() <= 2


def test_resampled_windows_are_parts_of_the_resampled_whole(gradient):
    # Red rises by 2 per pixel of the result, also at the seam between two windows and at the picture's edge.
    image = gradient()
    whole = FovReader().read(row(image, fov_mpp=0.5)).astype(int)
    left = FovReader().read(row(image, 0, 0, 50, 80, fov_mpp=0.5)).astype(int)
    right = FovReader().read(row(image, 50, 0, 50, 80, fov_mpp=0.5)).astype(int)
    assert np.abs(np.hstack([left, right]) - whole).max() == 0
    assert np.abs(whole[0, 1:-1, 0] - (2 * np.arange(1, 49) + 0.5)).max() <= 0.5
    assert whole[0, -1, 0] >= 98  # no white or black rim


def test_enlargement_and_odd_sizes(gradient):
    table = pd.DataFrame([row(gradient(), 5, 5, 33, 21, fov_mpp=0.2), row(gradient(), 0, 0, 99, 79, fov_mpp=0.5)])
    for (_, fov), size in zip(table.iterrows(), fov_size_px(table), strict=True):
        assert FovReader().read(fov).shape == (size[1], size[0], 3)


def test_transparent_pixels_are_white(tmp_path):
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[:, 10:] = (1, 2, 3, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = FovReader().read(row(tmp_path / "a.png", 0, 0, 20, 20))
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 10:] == (1, 2, 3)).all()


def test_a_region_of_a_slide(slide):
    reader = FovReader()
    pixels = reader.read(row(slide, 100, 200, 60, 40))
    assert pixels[0, 0].tolist() == [50, 100, 9]
    assert pixels.shape == (40, 60, 3)
    half = reader.read(row(slide, 100, 200, 60, 40, fov_mpp=0.5))
    assert half.shape == (20, 30, 3)
    assert np.abs(half[0, :, 0].astype(int) - (50 + np.arange(30))).max() <= 1
    assert len(reader._slides) == 1


def test_a_slide_resolution_within_the_tolerance_keeps_its_extent(slide):
    # At 0.2515 mpp level 0 (0.25) is read as it is: 400 px of the slide must still become 398, ending at column 400.
    pixels = FovReader().read(row(slide, 0, 0, 400, 400, fov_mpp=0.2515))
    assert pixels.shape == (398, 398, 3)
    assert abs(int(pixels[0, -1, 0]) - 199) <= 1


def test_the_row_says_the_resolution_of_a_slide_that_records_another(slide):
    pixels = FovReader().read(row(slide, 100, 0, 60, 40, mpp=0.5, fov_mpp=0.5))
    assert pixels[0, 0].tolist() == [50, 0, 9]
    assert pixels.shape == (40, 60, 3)


def test_a_plain_tiff_is_held_like_other_images(tmp_path):
    pixels = np.arange(60 * 70 * 3, dtype=np.uint32).reshape(60, 70, 3).astype(np.uint8)
    tifffile.imwrite(tmp_path / "p.tif", pixels, photometric="rgb")
    assert open_slide(tmp_path / "p.tif", mpp=0.25).backend_name == "image"
    reader = FovReader()
    for _ in range(2):
        assert np.array_equal(reader.read(row(tmp_path / "p.tif", 5, 6, 30, 20)), pixels[6:26, 5:35])
    assert reader._held_bytes == pixels.nbytes
    assert len(reader._slides) == 0


@pytest.mark.parametrize("fov_mpp", [0.25, 0.5])
def test_what_was_read_may_be_written_to(gradient, fov_mpp):
    reader = FovReader()
    first = reader.read(row(gradient(), fov_mpp=fov_mpp))
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(reader.read(row(gradient(), fov_mpp=fov_mpp)), kept)


def test_memory_is_bounded_and_the_least_used_image_leaves(gradient):
    images = [gradient(f"{name}.png") for name in "abc"]  # 24,000 bytes each
    reader = FovReader(cache_bytes=50_000)
    for name in (0, 1, 0, 2):
        reader.read(row(images[name]))
    assert list(reader._images) == [str(images[0]), str(images[2])]
    assert reader._held_bytes == 48_000
    none = FovReader(cache_bytes=0)
    assert none.read(row(images[0]))[3, 4].tolist() == [4, 3, 7]
    assert none._held_bytes == 0
    with pytest.raises(ConfigError, match="cache_bytes must be 0 or more, but is -1"):
        FovReader(cache_bytes=-1)


def test_a_reader_goes_to_other_processes_and_serves_threads(gradient, slide):
    reader = FovReader(cache_bytes=123)
    first = reader.read(row(gradient()))
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.cache_bytes == 123
    assert len(copy._images) == 0
    assert np.array_equal(copy.read(row(gradient())), first)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda left: copy.read(row(slide, left, 0, 64, 64))[0, 0, 0], range(0, 200, 10)))
    assert found == [left // 2 for left in range(0, 200, 10)]


def test_files_that_cannot_be_read_are_named(tmp_path, gradient):
    (tmp_path / "broken.png").write_bytes(gradient().read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "bad.svs").write_text("no slide")
    for name in ("broken.png", "text.jpg", "bad.svs", "missing.png", "missing.svs"):
        with pytest.raises(SlideReadError, match=name):
            FovReader().read(row(tmp_path / name))
    with pytest.raises(SlideReadError, match="f: the field has no image, only annotations"):
        FovReader().read(row(""))
