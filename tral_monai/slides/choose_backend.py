# SPDX-License-Identifier: Apache-2.0
"""Which backend reads a file: the one asked for, or the fastest that can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tral_monai.errors import SlideOpenError
from tral_monai.slides.backend import Backend
from tral_monai.slides.cucim_backend import CuCIMBackend
from tral_monai.slides.image_backend import SUFFIXES, ImageBackend
from tral_monai.slides.openslide_backend import OpenSlideBackend
from tral_monai.slides.tiff_backend import TiffBackend
from tral_monai.slides.tiff_pyramid import NotDirectError

BackendName = Literal["auto", "tiff", "cucim", "openslide", "image"]

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "tiff": TiffBackend,
    "cucim": CuCIMBackend,
    "openslide": OpenSlideBackend,
    "image": ImageBackend,
}


def open_backend(path: Path, name: str) -> Backend:
    """Open a file with the backend of that name ("auto": the fastest that reads it and reports damage).

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
    # Not cuCIM, though it is faster: it gives arbitrary pixels for a tile that does not decode, instead of an error.
    try:
        return OpenSlideBackend(path)
    except SlideOpenError:
        if path.suffix.lower() not in SUFFIXES:
            raise
        return ImageBackend(path)
