# SPDX-License-Identifier: Apache-2.0
"""Which backend reads a file: the one asked for, or the fastest that can."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tral_monai.errors import SlideOpenError
from tral_monai.slides.backend import Backend
from tral_monai.slides.cucim_backend import CuCIMBackend, cucim_unavailable
from tral_monai.slides.image_backend import SUFFIXES, ImageBackend
from tral_monai.slides.openslide_backend import OpenSlideBackend
from tral_monai.slides.tiff_backend import TiffBackend
from tral_monai.slides.tiff_pyramid import NotDirectError, vendor

BackendName = Literal["auto", "tiff", "cucim", "openslide", "image"]

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "tiff": TiffBackend,
    "cucim": CuCIMBackend,
    "openslide": OpenSlideBackend,
    "image": ImageBackend,
}


def open_backend(path: Path, name: str) -> Backend:
    """Open a file with the backend of that name ("auto": the fastest that reads it).

    Raises:
        SlideOpenError: No such file, an unknown backend, a format that it cannot read, or a damaged file.
    """
    if name != "auto" and name not in BACKENDS:
        raise SlideOpenError(f"backend must be 'auto' or one of {sorted(BACKENDS)}, got {name!r}")
    if not path.exists():
        raise SlideOpenError(f"{path.name}: no such file ({path})")
    if path.is_dir():
        raise SlideOpenError(f"{path.name}: is a folder; give the slide's file")
    if path.stat().st_size == 0:
        raise SlideOpenError(f"{path.name}: the file is empty; copy it again")
    if name == "auto":
        return _open_auto(path)
    return BACKENDS[name](path)


def _open_auto(path: Path) -> Backend:
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
        return ImageBackend(path)
    try:
        return TiffBackend(path)
    except NotDirectError:
        pass  # a slide of another kind
    try:
        opened = OpenSlideBackend(path)
    except SlideOpenError:
        if path.suffix.lower() not in SUFFIXES:
            raise
        return ImageBackend(path)
    # Of what is not decoded directly, these are the kinds that cuCIM reads.
    return _prefer_cucim(path, opened) if vendor(path) in ("aperio", "philips") else opened


def _prefer_cucim(path: Path, opened: OpenSlideBackend) -> Backend:
    """Return cuCIM's reader of a file that OpenSlide reads too, where cuCIM works and sees the same levels."""
    reason = cucim_unavailable()
    if reason is not None:
        if importlib.util.find_spec("cucim") is not None:
            _warn_once(reason)
        return opened
    try:
        preferred = CuCIMBackend(path)
    except SlideOpenError:
        return opened
    if preferred.level_dimensions != opened.level_dimensions:
        preferred.close()
        return opened
    opened.close()
    return preferred


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(f"slides are read through OpenSlide instead of cuCIM: {reason}", RuntimeWarning, stacklevel=2)
