# SPDX-License-Identifier: Apache-2.0
"""Open a slide and read regions of it at any magnification, through whichever backend suits the file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tral_monai.errors import SlideError, SlideReadError
from tral_monai.slides.backend import RGB, Backend, LevelTiles, TileSource, read_window
from tral_monai.slides.choose_backend import BackendName, open_backend
from tral_monai.slides.magnification import level_downsamples, magnification_to_mpp, mpp_to_magnification, resolve
from tral_monai.slides.mpp import choose_mpp
from tral_monai.slides.resample import ResampledTiles
from tral_monai.slides.tile_cache import TileCache
from tral_monai.slides.tile_decoder import TileDecoder

_OVERVIEW_CACHE_BYTES = 64 << 20  # tiles of the file that neighbouring resampled tiles share


def open_slide(path: str | os.PathLike[str], backend: BackendName = "auto", mpp: float | None = None) -> Slide:
    """Open a slide.

    Args:
        path: Slide file.
        backend: "tiff" decodes tiled RGB TIFF and Aperio SVS directly; "cucim"; "openslide"; "image" takes a plain
            image. "auto" takes the first that reads the file, fastest first. All give the same pixels.
        mpp: Micrometres per level-0 pixel; overrides what the file records.

    Raises:
        SlideOpenError: No such file, a format that the backend cannot read, or a damaged file.
        MissingMppError: The file records no micrometres per pixel and none was given.
        MissingExtraError: `backend="cucim"` without cuCIM installed.
    """
    return Slide(path, backend=backend, mpp=mpp)


class Slide:
    """An open slide; `open_slide` makes one.

    The file is opened once per process and on demand, so a slide can be pickled and passed to forked or spawned
    workers.

    Attributes:
        path: Path of the file.
        name: File name; the only name by which outputs may call the slide.
        dimensions: (width, height) at level 0 in pixels.
        level_dimensions: (width, height) of every level in pixels.
        level_downsamples: Level-0 pixels per pixel of every level.
        mpp_xy: Micrometres per level-0 pixel in x and y.
        mpp: Their mean.
        backend_name: The backend in use.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, backend: BackendName = "auto", mpp: float | None = None
    ) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self._requested = backend
        opened = open_backend(self.path, backend)
        self._backend: Backend | None = opened
        self._pid = os.getpid()
        self._closed = False
        self.backend_name = opened.name
        self.level_dimensions = opened.level_dimensions
        self.dimensions = opened.level_dimensions[0]
        self.level_downsamples = level_downsamples(opened.level_dimensions)
        try:
            self.mpp_xy = choose_mpp(self.path, opened.mpp_xy, mpp)
        except SlideError:
            self.close()
            raise
        self.mpp = sum(self.mpp_xy) / 2

    @property
    def magnification(self) -> float:
        """Magnification of level 0: 10 / mpp, so 0.25 um per pixel is 40x."""
        return mpp_to_magnification(self.mpp)

    @property
    def backend(self) -> Backend:
        """The open backend of this process."""
        if self._closed:
            raise SlideReadError(f"{self.name}: the slide is closed; open it again")
        if self._backend is None or self._pid != os.getpid():
            # A handle inherited by a fork shares its file position with the parent: it is replaced, never used.
            self._backend = open_backend(self.path, self._requested)
            self._pid = os.getpid()
        return self._backend

    def source(self, downsample: float) -> TileSource:
        """Return the tiles of the slide at a number of level-0 pixels per pixel (asked mpp / slide mpp)."""
        resolution = resolve(self.level_downsamples, downsample)
        level = LevelTiles(self.backend, resolution.level)
        return level if resolution.ratio == 1.0 else ResampledTiles(level, resolution.ratio)

    def read(
        self,
        xy_level0: tuple[float, float],
        size_px: tuple[int, int],
        *,
        magnification: float | None = None,
        mpp: float | None = None,
        level: int | None = None,
    ) -> RGB:
        """Read a region; white where it leaves the slide.

        Args:
            xy_level0: Top left corner (x, y) in level-0 pixels; the region starts at the nearest pixel asked for.
            size_px: (width, height) in pixels at the resolution asked for.
            magnification: Resolution as a magnification, or
            mpp: as micrometres per pixel, or
            level: as a level of the file; level 0 where nothing is given.

        Returns:
            uint8 (height, width, 3) RGB.

        Raises:
            SlideReadError: An empty size, more than one resolution, an unknown level, or tiles that cannot be decoded.
        """
        width, height = (int(side) for side in size_px)
        if width < 1 or height < 1:
            raise SlideReadError(f"{self.name}: size_px must be at least 1 x 1, got {width} x {height}")
        if sum(value is not None for value in (magnification, mpp, level)) > 1:
            raise SlideReadError(f"{self.name}: give one of magnification, mpp and level, not several")
        if magnification is not None:
            mpp = magnification_to_mpp(magnification)
        if mpp is not None:
            resolution = resolve(self.level_downsamples, mpp / self.mpp)
            downsample, source = resolution.downsample, self.source(mpp / self.mpp)
        else:
            level = 0 if level is None else level
            if not 0 <= level < len(self.level_dimensions):
                raise SlideReadError(f"{self.name}: has levels 0 to {len(self.level_dimensions) - 1}, got {level}")
            downsample, source = self.level_downsamples[level], LevelTiles(self.backend, level)
        x, y = (math.floor(position / downsample + 0.5) for position in xy_level0)
        return read_window(source, x, y, width, height)

    def thumbnail(self, max_px: int, *, missing: int | None = None) -> RGB:
        """Return the whole slide, its longer side at most `max_px` pixels: uint8 (height, width, 3).

        Args:
            max_px: Longest side in pixels.
            missing: Grey level, 0 to 255, of what cannot be decoded; None raises an error.

        Raises:
            SlideReadError: `max_px` is below 1, or a part of the slide cannot be decoded.
        """
        if max_px < 1:
            raise SlideReadError(f"{self.name}: max_px must be at least 1, got {max_px}")
        downsample = max(max(self.dimensions) / max_px, 1.0)
        resolution = resolve(self.level_downsamples, downsample)
        width, height = (max(min(round(side / resolution.downsample), max_px), 1) for side in self.dimensions)
        source = self.source(downsample)
        decoder = TileDecoder(self, TileCache(_OVERVIEW_CACHE_BYTES))

        def tile(column: int, row: int) -> RGB:
            try:
                return decoder.tile(source, column, row)
            except SlideReadError:
                if missing is None:
                    raise
                return np.full((source.tile_size[1], source.tile_size[0], 3), missing, np.uint8)

        return read_window(source, 0, 0, width, height, tile=tile)

    def close(self) -> None:
        """Close the file."""
        if self._backend is not None and self._pid == os.getpid():
            self._backend.close()
        self._backend = None
        self._closed = True

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backend": None}

    def __repr__(self) -> str:
        width, height = self.dimensions
        return f"Slide({self.name!r}, {width} x {height} px, mpp={self.mpp:.4g}, backend={self.backend_name!r})"
