# SPDX-License-Identifier: Apache-2.0
"""Direct decoding of tiled RGB TIFF and Aperio SVS: each JPEG or JPEG2000 tile straight from the file, nothing between.

Only directories that are levels of the pyramid are kept. Label, macro and thumbnail images are never decoded.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from tral_monai.errors import SlideOpenError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE
from tral_monai.slides.magnification import level_downsamples
from tral_monai.slides.mpp import mpp_from_tiff

_JPEG = 7
# none, LZW, JPEG, deflate (two codes), JPEG2000 (Aperio RGB, standard), zstd, WebP. Aperio's YCbCr JPEG2000 (33003) is
# not among them: its chroma is subsampled inside the code stream, which OpenSlide handles.
_COMPRESSIONS = {1, 5, _JPEG, 8, 32946, 33005, 34712, 50000, 50001}
_RGB, _YCBCR = 2, 6
_COLOUR_SPACE = {_RGB: "RGB", _YCBCR: "YCBCR"}
_FOREIGN = ("ndpi", "scn", "bif", "philips")  # vendors whose directories mean more than a plain pyramid


class NotDirectError(SlideOpenError):
    """The file may be a good slide, but not one for direct decoding: another backend should try."""


class _FileBytes:
    """Reads bytes at an offset, from several threads at once and without a shared file position."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), count, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class _Level:
    width: int
    height: int
    tile_width: int
    tile_height: int
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    compression: int
    colour_space: str
    jpeg_tables: bytes | None
    decode: Callable[..., Any]

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_height)


def _refusal(page: tifffile.TiffPage) -> str | None:
    """Return why a tiled directory cannot be decoded directly, None if it can."""
    if page.compression not in _COMPRESSIONS:
        return f"compression {int(page.compression)}"
    if page.samplesperpixel != 3 or page.dtype != np.uint8 or page.planarconfig != 1 or page.imagedepth != 1:
        return f"{page.samplesperpixel} samples of {page.dtype}, expected interleaved 8-bit RGB"
    if page.photometric not in _COLOUR_SPACE or (page.photometric == _YCBCR and page.compression != _JPEG):
        return f"photometric interpretation {int(page.photometric)}"
    return None


def _pyramid_pages(tiff: tifffile.TiffFile, name: str) -> list[tifffile.TiffPage]:
    """Return the directories that are levels, widest first."""
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
    first = pages[0]
    if not first.is_tiled:
        raise NotDirectError(f"{name}: the first image of the TIFF is not tiled")
    foreign = [vendor for vendor in _FOREIGN if getattr(tiff, f"is_{vendor}")]
    if foreign:
        raise NotDirectError(f"{name}: a {foreign[0].upper()} file is not a plain TIFF pyramid")
    if first.subifds:  # OME-TIFF keeps its pyramid below the first directory
        candidates = [page for page in first.pages or () if isinstance(page, tifffile.TiffPage)]
    elif first.description.startswith("Aperio"):
        candidates = pages[1:]
    else:
        candidates = [page for page in pages[1:] if page.is_reduced]
    levels = [first]
    for page in candidates:
        # A level shows what level 0 shows; anything of another shape is a label or macro image, tiled or not.
        same_shape = abs(page.imagewidth / first.imagewidth / (page.imagelength / first.imagelength) - 1) < 0.05
        if page.is_tiled and page.imagewidth < first.imagewidth and same_shape:
            levels.append(page)
    return sorted(levels, key=lambda page: -page.imagewidth)


def _check_chain(tiff: tifffile.TiffFile, name: str) -> None:
    """Raise when the list of directories ends in the middle, which a file cut short does."""
    len(tiff.pages)  # walks the whole list
    position = tiff.pages.next_page_offset
    if position is None:
        raise SlideOpenError(f"{name}: the TIFF holds no image. It is damaged or was cut short; copy it again")
    tiff.filehandle.seek(position)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)
    if len(pointer) < tiff.tiff.offsetsize or struct.unpack(tiff.tiff.offsetformat, pointer)[0] != 0:
        raise SlideOpenError(f"{name}: the list of TIFF directories breaks off: the file was cut short; copy it again")


def _parse_level(page: tifffile.TiffPage, name: str, file_size: int) -> _Level:
    reason = _refusal(page)
    if reason is not None:
        raise NotDirectError(f"{name}: direct decoding does not support this TIFF ({reason})")
    level = _Level(
        width=page.imagewidth,
        height=page.imagelength,
        tile_width=page.tilewidth,
        tile_height=page.tilelength,
        offsets=np.asarray(page.dataoffsets, np.int64),
        byte_counts=np.asarray(page.databytecounts, np.int64),
        compression=int(page.compression),
        colour_space=_COLOUR_SPACE[int(page.photometric)],
        jpeg_tables=page.jpegtables,
        decode=page.decode,
    )
    size = f"{level.width} x {level.height}"
    if 0 in (level.width, level.height, level.tile_width, level.tile_height):
        raise SlideOpenError(f"{name}: a level of {size} pixels in tiles of {level.tile_width} px is empty")
    count = level.columns * level.rows
    if len(level.offsets) != count or len(level.byte_counts) != count:
        raise SlideOpenError(f"{name}: level of {size} pixels needs {count} tiles, the TIFF lists {len(level.offsets)}")
    end = int((level.offsets + level.byte_counts).max())
    if end > file_size:
        raise SlideOpenError(
            f"{name}: the file was cut short: level of {size} pixels has a tile that ends at byte {end}, "
            f"the file at byte {file_size}. Copy it again"
        )
    return level


def _recorded_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    names = ("XResolution", "YResolution", "ResolutionUnit")
    return mpp_from_tiff(page.description, {name: page.tags[name].value for name in names if name in page.tags})


def stored_mpp(path: Path) -> tuple[float, float] | None:
    """Return the (x, y) micrometres per pixel that a TIFF's first directory records, None if it is no TIFF or none."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return _recorded_mpp(tiff.pages.first)
    except (tifffile.TiffFileError, IndexError):
        return None


class TiffBackend:
    """Tiled 8-bit RGB TIFF or Aperio SVS, decoded tile by tile with imagecodecs.

    Args:
        path: The slide file.

    Raises:
        NotDirectError: A TIFF, or another format, that this backend does not decode.
        SlideOpenError: A TIFF that is damaged or cut short.
    """

    name = "tiff"

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with tifffile.TiffFile(path) as tiff:
                _check_chain(tiff, path.name)
                pages = _pyramid_pages(tiff, path.name)
                file_size = tiff.filehandle.size
                levels = [_parse_level(page, path.name, file_size) for page in pages]
                self.mpp_xy = _recorded_mpp(pages[0])
        except tifffile.TiffFileError as error:
            with path.open("rb") as file:
                is_tiff = file.read(2) in (b"II", b"MM")
            if not is_tiff:
                raise NotDirectError(f"{path.name}: not a TIFF file") from error
            raise SlideOpenError(
                f"{path.name}: the TIFF is damaged or was cut short ({error}); copy it again"
            ) from error
        except (struct.error, IndexError, KeyError, ValueError) as error:  # what tifffile lets through from broken tags
            raise SlideOpenError(
                f"{path.name}: the TIFF is damaged or was cut short ({error}); copy it again"
            ) from error
        self._levels = levels
        self._bytes = _FileBytes(path)
        self.level_dimensions = tuple((level.width, level.height) for level in levels)
        self._downsamples = level_downsamples(self.level_dimensions)

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the file's own tiles in pixels."""
        return self._levels[level].tile_width, self._levels[level].tile_height

    def read_tile(self, level: int, column: int, row: int, out: RGB) -> None:
        """Decode one tile into `out`; a tile that the file leaves out is white."""
        info = self._levels[level]
        index = row * info.columns + column
        count = int(info.byte_counts[index])
        if count == 0:
            out[:] = WHITE
            return
        try:
            data = self._bytes.read(int(info.offsets[index]), count)
            if len(data) < count:
                raise ValueError(f"{len(data)} of its {count} bytes are left in the file")
            self._decode(info, index, data, out)
        except Exception as error:  # the codecs raise a class of their own each
            x, y = (
                round(n * side * self._downsamples[level]) for n, side in ((column, out.shape[1]), (row, out.shape[0]))
            )
            raise SlideReadError(
                f"{self._path.name}: tile at level {level}, column {column}, row {row} (x {x}, y {y} at level 0) "
                f"cannot be decoded: {error}. The file is damaged; copy it again"
            ) from error
        if (column + 1) * info.tile_width > info.width:
            out[:, info.width - column * info.tile_width :] = WHITE
        if (row + 1) * info.tile_height > info.height:
            out[info.height - row * info.tile_height :] = WHITE

    def _decode(self, info: _Level, index: int, data: bytes, out: RGB) -> None:
        if info.compression == _JPEG:
            imagecodecs.jpeg8_decode(
                data, tables=info.jpeg_tables, colorspace=info.colour_space, outcolorspace="RGB", out=out
            )
            return
        pixels = info.decode(data, index)[0]
        pixels = pixels.reshape(pixels.shape[-3:])
        out[: pixels.shape[0], : pixels.shape[1]] = pixels

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()
