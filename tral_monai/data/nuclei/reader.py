# SPDX-License-Identifier: Apache-2.0
"""Pixels of fields of view, from plain images and from slides, at the resolution that a detector wants."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from tral_monai.data.nuclei.field_check import NOT_AN_IMAGE, PLAIN_SUFFIXES
from tral_monai.errors import ConfigError, SlideError, SlideReadError
from tral_monai.slides import Slide, open_slide
from tral_monai.slides.magnification import resolve

RGB = npt.NDArray[np.uint8]

OPEN_SLIDES = 32
"""Slides kept open at a time: a data set may have more of them than a process may open files."""

WHITE = 255


class FovReader:
    """Reads fields of view (FOVs) of a table.

    Decoded images are kept, the least used one leaves first. Slides stay open and are read by region. Each process
    has its own images and handles: a reader can be passed to the workers of a ``DataLoader``.

    Args:
        cache_bytes: Memory for decoded images, in bytes; a 1000 x 1000 field takes 3,000,000.

    Raises:
        ConfigError: ``cache_bytes`` is negative.
    """

    def __init__(self, cache_bytes: int = 512 << 20) -> None:
        if cache_bytes < 0:
            raise ConfigError(f"cache_bytes must be 0 or more, but is {cache_bytes!r}")
        self.cache_bytes = int(cache_bytes)
        self._start()

    def _start(self) -> None:
        self._images: OrderedDict[str, RGB] = OrderedDict()
        self._slides: OrderedDict[tuple[str, float], Slide] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"cache_bytes": self.cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.cache_bytes = state["cache_bytes"]
        self._start()

    def read(self, row: Mapping[str, Any] | pd.Series[Any]) -> RGB:
        """One FOV.

        Args:
            row: A row of a table of FOVs.

        Returns:
            uint8 (h, w, 3) RGB at the row's ``fov_mpp``; white where the FOV leaves the image. The size is that of
            ``fov_table.fov_size_px``.

        Raises:
            SlideReadError: The image is missing or damaged; the message names its file.
        """
        path, mpp, fov_mpp = Path(str(row["image"])), float(row["mpp"]), float(row["fov_mpp"])
        left, top, width, height = (int(row[name]) for name in ("left_px", "top_px", "width_px", "height_px"))
        if not str(row["image"]):
            raise SlideReadError(f"{row['field']}: the field has no image, only annotations")
        size = tuple(max(int(np.rint(side * mpp / fov_mpp)), 1) for side in (width, height))
        with self._lock:
            if path.suffix.lower() in PLAIN_SUFFIXES:
                return _window(self._image(path), (left, top, width, height), (size[0], size[1]))
            try:
                return self._read_slide(path, mpp, fov_mpp, (left, top, width, height), (size[0], size[1]))
            except SlideReadError:
                raise
            except SlideError as error:
                raise SlideReadError(str(error)) from error

    def _image(self, path: Path) -> RGB:
        key = str(path)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        pixels = _decode(path)
        if pixels.nbytes <= self.cache_bytes:
            self._images[key] = pixels
            self._held_bytes += pixels.nbytes
            while self._held_bytes > self.cache_bytes:
                self._held_bytes -= self._images.popitem(last=False)[1].nbytes
        return pixels

    def _read_slide(
        self, path: Path, mpp: float, fov_mpp: float, place: tuple[int, int, int, int], size: tuple[int, int]
    ) -> RGB:
        if str(path) in self._images:
            return _window(self._image(path), place, size)
        slide = self._slide(path, mpp)
        if slide.backend_name == "image":  # a plain TIFF: held once, under the same limit as other images
            self._slides.pop((str(path), mpp)).close()
            return _window(self._image(path), place, size)
        left, top, width, height = place
        # A level within 1 % is read as it is, so the window is measured in its pixels and only then brought to size.
        downsample = resolve(slide.level_downsamples, fov_mpp / slide.mpp).downsample
        read_px = (max(round(width / downsample), 1), max(round(height / downsample), 1))
        pixels = slide.read((left, top), read_px, mpp=fov_mpp)
        return pixels if read_px == size else _window(pixels, (0, 0, *read_px), size)

    def _slide(self, path: Path, mpp: float) -> Slide:
        key = (str(path), mpp)
        if key not in self._slides:
            self._slides[key] = open_slide(path, mpp=mpp)
            if len(self._slides) > OPEN_SLIDES:
                self._slides.popitem(last=False)[1].close()
        self._slides.move_to_end(key)
        return self._slides[key]


def _decode(path: Path) -> RGB:
    """A whole image as RGB; transparent pixels are white."""
    if not path.is_file():
        raise SlideReadError(f"{path.name}: no such image ({path})")
    try:
        with Image.open(path) as image:
            if "A" in image.getbands() or "transparency" in image.info:
                rgba = image.convert("RGBA")
                canvas = Image.new("RGBA", rgba.size, (WHITE, WHITE, WHITE, WHITE))
                canvas.alpha_composite(rgba)
                return np.asarray(canvas.convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except NOT_AN_IMAGE as error:
        raise SlideReadError(f"{path.name}: cannot be read as an image ({error}); copy it again") from error


def _window(pixels: RGB, place: tuple[int, int, int, int], size: tuple[int, int]) -> RGB:
    """Part of an image (left, top, width, height), brought to (width, height); white outside the image.

    Reduction filters out what the new grid cannot hold (Pillow's Hamming filter, as for slides); enlargement is
    bilinear. Pixels beyond the window take part at its edges, so neighbouring FOVs fit together.
    """
    left, top, width, height = place
    if (width, height) == size:
        return _padded(pixels, left, top, width, height)
    ratio_x, ratio_y = width / size[0], height / size[1]
    margin_x, margin_y = math.ceil(max(ratio_x, 1.0)) + 1, math.ceil(max(ratio_y, 1.0)) + 1
    # The margin ends at the image's edge: beyond it lies white, which would rim the FOVs there.
    x0, y0 = max(left - margin_x, min(left, 0)), max(top - margin_y, min(top, 0))
    x1 = min(left + width + margin_x, max(left + width, pixels.shape[1]))
    y1 = min(top + height + margin_y, max(top + height, pixels.shape[0]))
    box = (left - x0, top - y0, left - x0 + width, top - y0 + height)
    method = Image.Resampling.HAMMING if max(ratio_x, ratio_y) > 1 else Image.Resampling.BILINEAR
    source = Image.fromarray(_padded(pixels, x0, y0, x1 - x0, y1 - y0))
    return np.array(source.resize(size, method, box=box))


def _padded(pixels: RGB, left: int, top: int, width: int, height: int) -> RGB:
    rows, columns = pixels.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, columns), min(top + height, rows)
    if (x0, y0, x1, y1) == (left, top, left + width, top + height):
        return pixels[y0:y1, x0:x1].copy()  # never a view: the kept image must not change
    out = np.full((height, width, 3), WHITE, dtype=np.uint8)
    if x1 > x0 and y1 > y0:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return out
