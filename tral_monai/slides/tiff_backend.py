# SPDX-License-Identifier: Apache-2.0
"""Direct decoding of tiled RGB TIFF and Aperio SVS: each JPEG or JPEG2000 tile straight from the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import imagecodecs
import numpy as np

from tral_monai.errors import SlideOpenError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE
from tral_monai.slides.jpeg_damage import jpeg_damage
from tral_monai.slides.magnification import level_downsamples
from tral_monai.slides.tiff_pyramid import JPEG, TiffLevel, read_pyramid


class _FileBytes:
    """Reads bytes at an offset, from several threads at once and without a shared file position."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:  # Windows
            self._file.seek(offset)
            return self._file.read(count)

    def close(self) -> None:
        self._file.close()


class TiffBackend:
    """Tiled 8-bit RGB TIFF or Aperio SVS, decoded tile by tile with imagecodecs.

    JPEG tiles are decoded with libjpeg-turbo's defaults, as OpenSlide does, so the pixels are the same to the bit.

    Args:
        path: The slide file.

    Raises:
        NotDirectError: A TIFF, or another format, that this backend does not decode.
        SlideOpenError: A TIFF that is damaged or cut short.
    """

    name = "tiff"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._levels, self.mpp_xy = read_pyramid(path)
        self._bytes = _FileBytes(path)
        self.level_dimensions = tuple((level.width, level.height) for level in self._levels)
        self._downsamples = level_downsamples(self.level_dimensions)

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the file's own tiles in pixels."""
        return self._levels[level].tile_width, self._levels[level].tile_height

    def read_tile(self, level: int, column: int, row: int) -> RGB:
        """Decode one tile; a tile that the file leaves out is white.

        Raises:
            SlideReadError: The tile cannot be decoded.
            SlideOpenError: The file cannot be read any more, such as on a network share that is gone.
        """
        info = self._levels[level]
        index = row * info.columns + column
        count = int(info.byte_counts[index])
        if count == 0:
            return np.full((info.tile_height, info.tile_width, 3), WHITE, np.uint8)
        height = min(info.tile_height, info.height - row * info.tile_height)
        width = min(info.tile_width, info.width - column * info.tile_width)
        try:
            data = self._bytes.read(int(info.offsets[index]), count)
        except OSError as error:
            # Not this tile's fault: to mark the rest of the slide as damaged, and it as finished, would be wrong.
            raise SlideOpenError(
                f"{self._path.name}: the file can no longer be read ({error.strerror}); check the disk or the network "
                "share, then run the same command again"
            ) from error
        try:
            if len(data) < count:
                raise ValueError(f"{len(data)} of its {count} bytes are left in the file")
            pixels = _decode(info, index, data)
            # Some writers cut the tiles of the last row and column to what is visible of them.
            if pixels.shape[0] < height or pixels.shape[1] < width or pixels.shape[2:] != (3,):
                raise ValueError(
                    f"it holds an image of shape {pixels.shape}, expected RGB, at least {height} x {width}"
                )
        except Exception as error:  # the codecs raise a class of their own each
            factor = self._downsamples[level]
            x, y = round(column * info.tile_width * factor), round(row * info.tile_height * factor)
            raise SlideReadError(
                f"{self._path.name}: tile at level {level}, column {column}, row {row} (x {x}, y {y} at level 0) "
                f"cannot be decoded: {error}. The file is damaged; copy it again"
            ) from error
        if pixels.shape[:2] == (height, width) == (info.tile_height, info.tile_width):
            return pixels
        tile = np.full((info.tile_height, info.tile_width, 3), WHITE, np.uint8)
        tile[:height, :width] = pixels[:height, :width]
        return tile

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()


def _decode(level: TiffLevel, index: int, data: bytes) -> RGB:
    """Decode a tile's bytes; raises what the codec raises."""
    if level.compression == JPEG:
        damage = jpeg_damage(data, level.tile_width, level.tile_height)
        if damage is not None:
            raise ValueError(damage)
        # Not into a buffer of ours: imagecodecs then takes a fifth longer.
        pixels = imagecodecs.jpeg8_decode(
            data, tables=level.jpeg_tables, colorspace=level.colour_space, outcolorspace="RGB"
        )
    else:
        pixels = level.decode(data, index)[0]
        pixels = pixels.reshape(pixels.shape[-3:])
    return np.asarray(pixels, np.uint8)
