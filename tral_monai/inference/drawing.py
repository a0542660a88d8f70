# SPDX-License-Identifier: Apache-2.0
"""What the pictures of the room share: inks, a font, a scale bar, and the picture of a slide to draw on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tral_monai.errors import SlideReadError
from tral_monai.inference.palette import Rgb

if TYPE_CHECKING:
    from tral_monai.slides.slide import Slide

_log = logging.getLogger(__name__)

INK: Rgb = (33, 37, 41)
FAINT: Rgb = (108, 117, 125)
LINE: Rgb = (206, 212, 218)
SMALLEST_PICTURE_PX = 480
"""A smaller slide is enlarged, so that title and legend have a place beside it."""

_EMPTY = 240  # grey in place of a slide that cannot be shown
_SCALE_BARS_UM = tuple(step * 10**power for power in range(6) for step in (1, 2, 5))


def font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    """A font with µ and ², on every system.

    Args:
        size: in pixels.
        weight: ``-Bold`` or nothing.
    """
    # Pillow's own font has neither; matplotlib brings one that has them.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{weight}.ttf", size)


def draw_scale_bar(picture: Image.Image, um_per_px: float, size: int) -> None:
    """Draw a bar of a round length into the lower left corner, where one of at most a quarter of the width fits.

    Args:
        picture: RGB image, drawn on.
        um_per_px: micrometres per pixel of the picture.
        size: of the text, in pixels.
    """
    longest = [um for um in _SCALE_BARS_UM if um / um_per_px <= picture.width / 4]
    if not longest:
        return
    um = longest[-1]
    length = round(um / um_per_px)
    label = f"{um // 1000} mm" if um >= 1000 else f"{um} µm"
    draw, text_font = ImageDraw.Draw(picture, "RGBA"), font(size)
    text_width = round(draw.textlength(label, font=text_font))
    pad, bar = size // 2, max(3, size // 4)
    box_width, box_height = max(length, text_width) + 2 * pad, round(1.3 * size) + bar + 2 * pad
    left, top = pad, picture.height - pad - box_height
    draw.rounded_rectangle((left, top, left + box_width, top + box_height), radius=pad // 2, fill=(255, 255, 255, 225))
    middle = left + box_width / 2
    draw.text((middle, top + pad), label, fill=INK, font=text_font, anchor="mt")
    bottom = top + box_height - pad
    draw.rectangle((middle - length / 2, bottom - bar, middle + length / 2, bottom), fill=INK)


def thumbnail_or_grey(slide: Slide, max_px: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The slide's picture, grey where it cannot be decoded, because the result over it is good all the same.

    Args:
        slide: an open slide.
        max_px: longest side of the picture.

    Returns:
        uint8 (h, w, 3) RGB, and a title: the slide's name and what is wrong with the picture, if anything.
    """
    try:
        return slide.thumbnail(max_px), slide.name
    except SlideReadError as error:
        # The result comes from other levels of the file.
        _log.warning("%s: the overlay is grey where there is no picture of the slide: %s", slide.name, error)
    return slide.thumbnail(max_px, missing=_EMPTY), f"{slide.name} (grey parts cannot be decoded)"
