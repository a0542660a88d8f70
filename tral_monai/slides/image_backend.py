# SPDX-License-Identifier: Apache-2.0
"""A plain image (PNG, JPEG, untiled TIFF) as a slide of one level: for fields of view. It is held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tral_monai.errors import SlideOpenError
from tral_monai.slides.backend import RGB, WHITE
from tral_monai.slides.tiff_pyramid import stored_mpp

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_TILE_PX = 256


class ImageBackend:
    """A whole image, read once. Transparent pixels are white; of plain images, only TIFF records micrometres per pixel.

    Args:
        path: The image file.

    Raises:
        SlideOpenError: Pillow cannot read it, or it is larger than Pillow's limit against decompression bombs.
    """

    name = "image"

    def __init__(self, path: Path) -> None:
        try:
            with Image.open(path) as image:
                rgba = image.convert("RGBA")
        except (OSError, ValueError, SyntaxError, OverflowError, Image.DecompressionBombError) as error:
            raise SlideOpenError(f"{path.name}: neither a slide nor an image that can be read ({error})") from error
        canvas = Image.new("RGBA", rgba.size, (WHITE, WHITE, WHITE, WHITE))
        canvas.alpha_composite(rgba)
        self._pixels = np.asarray(canvas.convert("RGB"))
        self.level_dimensions: tuple[tuple[int, int], ...] = (canvas.size,)
        self.mpp_xy = stored_mpp(path) if path.suffix.lower() in (".tif", ".tiff") else None

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (256, 256)."""
        return _TILE_PX, _TILE_PX

    def read_tile(self, level: int, column: int, row: int) -> RGB:
        """Return one tile."""
        top, left = row * _TILE_PX, column * _TILE_PX
        part = self._pixels[top : top + _TILE_PX, left : left + _TILE_PX]
        height, width = part.shape[:2]
        if (height, width) == (_TILE_PX, _TILE_PX):
            return part
        return np.pad(part, ((0, _TILE_PX - height), (0, _TILE_PX - width), (0, 0)), constant_values=WHITE)

    def close(self) -> None:
        """Drop the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)
