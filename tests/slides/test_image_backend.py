# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tral_monai.errors import MissingMppError, SlideOpenError
from tral_monai.slides.slide import open_slide


def test_png_field_of_view(tmp_path, make_texture):
    pixels = make_texture(300, 200)
    path = tmp_path / "field.png"
    Image.fromarray(pixels).save(path)
    slide = open_slide(path, mpp=0.25)
    assert (slide.backend_name, slide.dimensions, slide.magnification) == ("image", (300, 200), 40.0)
    assert (slide.read((0, 0), (300, 200)) == pixels).all()
    assert (slide.read((-5, 190), (10, 20))[10:] == 255).all()


def test_needs_an_mpp(tmp_path):
    path = tmp_path / "field.jpg"
    Image.new("RGB", (50, 40)).save(path, dpi=(72, 72))
    with pytest.raises(MissingMppError, match=r"field\.jpg: the file records no micrometres"):
        open_slide(path)


def test_untiled_tiff_is_read_as_an_image(tmp_path, make_texture):
    pixels = make_texture(120, 90)
    path = tmp_path / "field.tif"
    Image.fromarray(pixels).save(path)
    slide = open_slide(path, mpp=0.5)
    assert slide.backend_name == "image"
    assert (slide.read((0, 0), (120, 90)) == pixels).all()


def test_transparent_is_white(tmp_path):
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[:, 5:, 3] = 255
    path = tmp_path / "field.png"
    Image.fromarray(pixels).save(path)
    row = open_slide(path, mpp=0.5).read((0, 0), (10, 1))[0, :, 0]
    assert row.tolist() == [255] * 5 + [0] * 5


def test_damaged_image(tmp_path):
    path = tmp_path / "field.png"
    Image.new("RGB", (500, 400)).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SlideOpenError, match=r"field\.png: neither a slide nor an image"):
        open_slide(path, mpp=0.5)
