# SPDX-License-Identifier: Apache-2.0
"""A plain image (PNG, JPEG, untiled TIFF) as a slide of one level: for fields of view. It is held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tral_monai.errors import SlideOpenError
from tral_monai.slides.backend import RGB, WHITE

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_TILE_PX = 256


class ImageBackend:
    """A whole image, read once. Transparent pixels are white; a plain image records no micrometres per pixel.

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
        self.mpp_xy: tuple[float, float] | None = None

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (256, 256)."""
        return _TILE_PX, _TILE_PX

    def read_tile(self, level: int, column: int, row: int, out: RGB) -> None:
        """Copy one tile into `out`."""
        height, width = out.shape[:2]
        part = self._pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        if part.shape != out.shape:
            out[:] = WHITE
        out[: part.shape[0], : part.shape[1]] = part

    def close(self) -> None:
        """Drop the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)
