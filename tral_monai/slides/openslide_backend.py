# SPDX-License-Identifier: Apache-2.0
"""OpenSlide: MRXS, NDPI, SCN, DICOM and every other format it reads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from tral_monai.errors import SlideOpenError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE
from tral_monai.slides.mpp import plausible

_UNIT_PX = 512
_UNIT_RANGE_PX = (128, 1024)


class OpenSlideBackend:
    """A slide read through OpenSlide.

    OpenSlide addresses a level in level-0 pixels. Where a level's factor is no integer (4443 / 2221) it therefore
    blends neighbours by up to half a level-0 pixel; levels with integer factors come out exactly.

    OpenSlide never leaves the error of one region: every later read of that handle fails too. After a failure the file
    is therefore opened again, so that a damaged region costs itself only, whichever thread came upon it.

    Args:
        path: The slide file.

    Raises:
        SlideOpenError: OpenSlide does not know the format, or the file is damaged.
    """

    name = "openslide"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideOpenError(f"{path.name}: not a slide format that OpenSlide knows") from error
        except openslide.OpenSlideError as error:
            raise SlideOpenError(f"{path.name}: OpenSlide cannot open the file ({error}). Is it damaged?") from error
        self.level_dimensions = tuple((int(w), int(h)) for w, h in self._slide.level_dimensions)
        self._downsamples = tuple(float(factor) for factor in self._slide.level_downsamples)
        properties = self._slide.properties
        try:
            stored = (
                float(properties[openslide.PROPERTY_NAME_MPP_X]),
                float(properties[openslide.PROPERTY_NAME_MPP_Y]),
            )
        except (KeyError, ValueError):
            self.mpp_xy = None
        else:
            self.mpp_xy = plausible(stored)
        self._tile_sizes = tuple(self._unit(level) for level in range(len(self.level_dimensions)))

    def _unit(self, level: int) -> tuple[int, int]:
        properties = self._slide.properties
        sides = [properties.get(f"openslide.level[{level}].tile-{side}", "") for side in ("width", "height")]
        low, high = _UNIT_RANGE_PX
        if all(side.isdigit() and low <= int(side) <= high for side in sides):
            return int(sides[0]), int(sides[1])
        return _UNIT_PX, _UNIT_PX

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the file's tiles where OpenSlide tells them, else of 512 px blocks."""
        return self._tile_sizes[level]

    def read_tile(self, level: int, column: int, row: int) -> RGB:
        """Return one block, with OpenSlide's transparency laid on white."""
        width, height = self._tile_sizes[level]
        factor = self._downsamples[level]
        x, y = round(column * width * factor), round(row * height * factor)
        try:
            rgba = self._read((x, y), level, (width, height))
        except openslide.OpenSlideError as error:
            raise SlideReadError(
                f"{self._path.name}: region at x {x}, y {y} (level 0), {width} x {height} px at level {level}, "
                f"cannot be read: {error}. The file is damaged; copy it again"
            ) from error
        # Pillow does this five times faster than NumPy, whose inner loop would be three bytes long.
        alpha = rgba.getchannel("A")
        if alpha.getextrema() == (WHITE, WHITE):
            return np.asarray(rgba.convert("RGB"))
        canvas = Image.new("RGB", rgba.size, "white")
        canvas.paste(rgba, mask=alpha)
        return np.asarray(canvas)

    def _read(self, xy_level0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Image.Image:
        handle = self._slide
        try:
            return handle.read_region(xy_level0, level, size_px)
        except openslide.OpenSlideError:
            if self._closed:
                raise
        # The error may be an earlier one, of another region and thread: a handle of our own tells.
        own = self._opened_again()
        try:
            image = own.read_region(xy_level0, level, size_px)
        except openslide.OpenSlideError:
            own.close()
            self._replace(handle)
            raise
        self._replace(handle, own)
        return image

    def _opened_again(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self._path)
        except openslide.OpenSlideError as error:
            # Not this region's fault: to mark the rest of the slide as damaged, and it as finished, would be wrong.
            raise SlideOpenError(
                f"{self._path.name}: the file can no longer be opened ({error}); check the disk or the network share, "
                "then run the same command again"
            ) from error

    def _replace(self, broken: openslide.OpenSlide, by: openslide.OpenSlide | None = None) -> None:
        """Put a good handle in the place of a broken one. Threads that still read from that keep it alive."""
        with self._lock:
            if self._slide is broken and not self._closed:
                self._slide = by if by is not None else self._opened_again()
            elif by is not None:
                by.close()

    def close(self) -> None:
        """Close the slide."""
        with self._lock:
            self._closed = True
            self._slide.close()
