# SPDX-License-Identifier: Apache-2.0
"""cuCIM: NVIDIA's reader of tiled TIFF. Optional; never imported where its import would hang."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np

from tral_monai.errors import MissingExtraError, SlideOpenError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE
from tral_monai.slides.magnification import level_downsamples
from tral_monai.slides.mpp import plausible
from tral_monai.slides.tiff_pyramid import empty_tiles, stored_mpp

_UNIT_PX = 512  # where the file has no tiles


def _loaded_libraries() -> str:
    try:
        return Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return ""


def would_hang(*, platform: str, has_proc_modules: bool, libraries: str, torch_imported: bool) -> bool:
    """Return whether opening a slide with cuCIM would wait for ever.

    NVIDIA's libcufile, which torch's CUDA build loads, makes cuCIM wait for `/proc/modules` on kernels that have none
    (micro-VMs, sandboxes), unless a slide was opened with cuCIM before torch was imported.

    Args:
        platform: `sys.platform`.
        has_proc_modules: Whether `/proc/modules` exists.
        libraries: The libraries loaded in this process, as in `/proc/self/maps`.
        torch_imported: Whether torch is imported.
    """
    if not platform.startswith("linux") or has_proc_modules or "cucim.kit.cuslide" in libraries:
        return False
    return torch_imported or "libcufile" in libraries


def cucim_unavailable() -> str | None:
    """Return why cuCIM cannot be used in this process, None if it can."""
    if importlib.util.find_spec("cucim") is None:
        return "it is not installed"
    if would_hang(
        platform=sys.platform,
        has_proc_modules=Path("/proc/modules").exists(),
        libraries=_loaded_libraries(),
        torch_imported="torch" in sys.modules,
    ):
        return "torch was imported first, and on this kernel (no /proc/modules) cuCIM would then hang for ever"
    return None


class CuCIMBackend:
    """A tiled TIFF or Aperio SVS read through cuCIM.

    Args:
        path: The slide file.

    Raises:
        MissingExtraError: cuCIM is not installed.
        SlideOpenError: cuCIM would hang in this process, or cannot open the file.
    """

    name = "cucim"

    def __init__(self, path: Path) -> None:
        reason = cucim_unavailable()
        if reason is not None:
            if importlib.util.find_spec("cucim") is None:
                raise MissingExtraError("the cuCIM backend", "cucim")
            raise SlideOpenError(
                f"{path.name}: cuCIM cannot be used here: {reason}. "
                "Open the first slide before torch is imported, or use backend='auto'"
            )
        from cucim.clara import CuImage

        self._path = path
        try:
            self._image = CuImage(str(path))
            resolutions = self._image.resolutions
        except RuntimeError as error:
            raise SlideOpenError(f"{path.name}: cuCIM cannot open the file: {error}") from error
        if self._image.dims != "YXC" or not resolutions.get("level_count"):
            raise SlideOpenError(
                f"{path.name}: cuCIM sees {self._image.dims} and {resolutions}, expected an RGB pyramid"
            )
        self.level_dimensions = tuple((int(w), int(h)) for w, h in resolutions["level_dimensions"])
        self._tile_sizes = tuple((int(w) or _UNIT_PX, int(h) or _UNIT_PX) for w, h in resolutions["level_tile_sizes"])
        self._stored_factors = tuple(float(factor) for factor in resolutions["level_downsamples"])
        self._downsamples = level_downsamples(self.level_dimensions)
        self.mpp_xy = plausible(stored_mpp(path))
        empty = empty_tiles(path)
        self._empty = tuple(empty.get(size, frozenset()) for size in self.level_dimensions)

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the file's tiles in pixels."""
        return self._tile_sizes[level]

    def read_tile(self, level: int, column: int, row: int) -> RGB:
        """Return one tile; only the part inside of the level is asked for, because cuCIM pads with black."""
        width, height = self._tile_sizes[level]
        if (column, row) in self._empty[level]:
            return np.full((height, width, 3), WHITE, np.uint8)  # cuCIM makes what the file leaves out black
        x, y = column * width, row * height
        inside_w = min(width, self.level_dimensions[level][0] - x)
        inside_h = min(height, self.level_dimensions[level][1] - y)
        # cuCIM divides a level-0 position by its own factor and drops the rest: the ceiling comes back as x, y.
        factor = self._stored_factors[level]
        location = (math.ceil(x * factor), math.ceil(y * factor))
        try:
            region = np.asarray(self._image.read_region(location, (inside_w, inside_h), level))
        except (RuntimeError, ValueError) as error:
            raise SlideReadError(
                f"{self._path.name}: region at x {location[0]}, y {location[1]} (level 0), {inside_w} x {inside_h} px "
                f"at level {level}, cannot be read: {error}. The file is damaged; copy it again"
            ) from error
        if (inside_w, inside_h) == (width, height) and region.shape[2] == 3:
            return region
        out = np.full((height, width, 3), WHITE, np.uint8)
        out[:inside_h, :inside_w] = region[..., :3]
        return out

    def close(self) -> None:
        """Close the slide."""
        self._image.close()
