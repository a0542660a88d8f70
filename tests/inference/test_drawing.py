# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.inference.colour_slides import break_tile, slide_pixels, write_slide
from tral_monai.inference.drawing import INK, draw_scale_bar, font, thumbnail_or_grey
from tral_monai.slides.slide import open_slide


def test_the_scale_bar_has_its_length() -> None:
    picture = Image.new("RGB", (1000, 400), (120, 120, 120))
    draw_scale_bar(picture, 0.5, 12)  # a quarter of the width is 125 um: the bar has 100 um, 200 px
    ink = (np.asarray(picture) == INK).all(axis=2)
    assert ink.sum(axis=1).max() in (200, 201)


def test_where_no_bar_fits_nothing_is_drawn() -> None:
    picture = Image.new("RGB", (3, 100), (120, 120, 120))
    draw_scale_bar(picture, 0.5, 12)
    assert (np.asarray(picture) == 120).all()


def test_the_font_has_the_signs_of_units() -> None:
    assert font(20).getlength("µ²") > 0
    assert font(20).getmask("µ").getbbox() != font(20).getmask("\\u0007").getbbox()


def test_a_slide_that_cannot_be_shown_is_grey_and_says_so(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels(("SS", "SS")))
    with open_slide(path) as slide:
        picture, title = thumbnail_or_grey(slide, 200)
        assert title == "s.tif"
        assert np.abs(picture.astype(int) - (228, 140, 190)).max() < 8  # stroma
    for level in range(3):
        break_tile(path, level, 0)
    with open_slide(path) as slide:
        picture, title = thumbnail_or_grey(slide, 200)
    assert title == "s.tif (grey parts cannot be decoded)"
    assert (picture == 240).all()
    assert picture.shape == (200, 200, 3)
