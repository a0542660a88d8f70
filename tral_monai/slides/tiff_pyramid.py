# SPDX-License-Identifier: Apache-2.0
"""What a tiled TIFF or Aperio SVS holds: the levels of its pyramid, where their tiles lie, and what it records.

Only directories that are levels are kept. The pixels of label, macro and thumbnail images are never touched.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tral_monai.errors import SlideOpenError
from tral_monai.slides.mpp import mpp_from_tiff

JPEG = 7
# none, LZW, JPEG, deflate (two codes), JPEG2000 (Aperio RGB, standard), zstd, WebP. Aperio's YCbCr JPEG2000 (33003) is
# not among them: its chroma may be subsampled inside the code stream, which imagecodecs does not decode.
_COMPRESSIONS = {1, 5, JPEG, 8, 32946, 33005, 34712, 50000, 50001}
_YCBCR = 6
_COLOUR_SPACE = {2: "RGB", _YCBCR: "YCBCR"}
_FOREIGN = ("ndpi", "scn", "bif", "philips")  # vendors whose directories mean more than a plain pyramid


class NotDirectError(SlideOpenError):
    """The file may be a good slide, but not one for direct decoding: another backend should try."""


@dataclass(frozen=True)
class TiffLevel:
    """One level of the pyramid: its size and its tiles' in pixels, where each tile lies, and how it is coded.

    Attributes:
        offsets: Position of each tile in the file in bytes, int64 (rows * columns,), row by row.
        byte_counts: Length of each tile in bytes; 0 where the file leaves a tile out.
        colour_space: Of JPEG tiles, as libjpeg names it. The TIFF decides, not the JPEG header: Aperio writes RGB.
        decode: tifffile's decoder for tiles that are not JPEG.
    """

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
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile_height)


def read_pyramid(path: Path) -> tuple[list[TiffLevel], tuple[float, float] | None]:
    """Read the directories of a TIFF that are levels of its pyramid.

    Returns:
        The levels, full resolution first, and the (x, y) micrometres per pixel that the file records, if it does.

    Raises:
        NotDirectError: A TIFF, or another format, that is not decoded directly.
        SlideOpenError: A TIFF that is damaged or cut short.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            _check_chain(tiff, path.name)
            pages = _pyramid_pages(tiff, path.name)
            file_size = tiff.filehandle.size
            return [_parse_level(page, path.name, file_size) for page in pages], _recorded_mpp(pages[0])
    # A broken tag gets through tifffile as one of the other errors.
    except (tifffile.TiffFileError, struct.error, LookupError, ValueError, TypeError, ArithmeticError) as error:
        with path.open("rb") as file:
            is_tiff = file.read(2) in (b"II", b"MM")
        if not is_tiff:
            raise NotDirectError(f"{path.name}: not a TIFF file") from error
        raise SlideOpenError(f"{path.name}: the TIFF is damaged or was cut short ({error}); copy it again") from error


def stored_mpp(path: Path) -> tuple[float, float] | None:
    """Return the (x, y) micrometres per pixel that a TIFF's first directory records, None if it is no TIFF or none."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return _recorded_mpp(tiff.pages.first)
    except (tifffile.TiffFileError, LookupError):
        return None


def vendor(path: Path) -> str | None:
    """Return "aperio" or "philips" for their TIFF files, None for any other file."""
    try:
        with tifffile.TiffFile(path) as tiff:
            if tiff.pages.first.description.startswith("Aperio"):
                return "aperio"
            return "philips" if tiff.is_philips else None
    except (tifffile.TiffFileError, LookupError):
        return None


def empty_tiles(path: Path) -> dict[tuple[int, int], frozenset[tuple[int, int]]]:
    """Return the tiles that a TIFF leaves out: (column, row) of each, by (width, height) of their level."""
    found = {}
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            if isinstance(page, tifffile.TiffPage) and page.is_tiled:
                columns = -(-page.imagewidth // page.tilewidth)
                empty = np.flatnonzero(np.asarray(page.databytecounts) == 0).tolist()
                found[page.imagewidth, page.imagelength] = frozenset((i % columns, i // columns) for i in empty)
    return found


def _recorded_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    names = ("XResolution", "YResolution", "ResolutionUnit")
    return mpp_from_tiff(page.description, {name: page.tags[name].value for name in names if name in page.tags})


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


def _pyramid_pages(tiff: tifffile.TiffFile, name: str) -> list[tifffile.TiffPage]:
    """Return the directories that are levels, widest first."""
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
    first = pages[0]
    foreign = [vendor for vendor in _FOREIGN if getattr(tiff, f"is_{vendor}")]
    if foreign:
        raise NotDirectError(f"{name}: a {foreign[0].upper()} file is not a plain TIFF pyramid")
    if not first.is_tiled:
        raise NotDirectError(f"{name}: the first image of the TIFF is not tiled")
    if first.subifds:  # OME-TIFF keeps its pyramid below the first directory
        candidates = [page for page in first.pages or () if isinstance(page, tifffile.TiffPage)]
    elif first.description.startswith("Aperio"):
        candidates = pages[1:]
    else:
        candidates = [page for page in pages[1:] if page.is_reduced]
    for page in (first, *candidates):
        if page.is_tiled and 0 in (page.imagewidth, page.imagelength, page.tilewidth, page.tilelength):
            raise SlideOpenError(f"{name}: a level of {page.imagewidth} x {page.imagelength} pixels is empty")
    levels = [first]
    for page in candidates:
        if not page.is_tiled:
            continue
        # A level shows what level 0 shows; anything of another shape is a label or macro image, tiled or not.
        same_shape = abs(page.imagewidth / first.imagewidth / (page.imagelength / first.imagelength) - 1) < 0.05
        if page.imagewidth < first.imagewidth and same_shape:
            levels.append(page)
    return sorted(levels, key=lambda page: -page.imagewidth)


def _refusal(page: tifffile.TiffPage) -> str | None:
    """Return why a tiled directory cannot be decoded directly, None if it can."""
    if page.compression not in _COMPRESSIONS:
        return f"compression {int(page.compression)}"
    if page.samplesperpixel != 3 or page.dtype != np.uint8 or page.planarconfig != 1 or page.imagedepth != 1:
        return f"{page.samplesperpixel} samples of {page.dtype}, expected interleaved 8-bit RGB"
    if page.photometric not in _COLOUR_SPACE or (page.photometric == _YCBCR and page.compression != JPEG):
        return f"photometric interpretation {int(page.photometric)}"
    return None


def _parse_level(page: tifffile.TiffPage, name: str, file_size: int) -> TiffLevel:
    reason = _refusal(page)
    if reason is not None:
        raise NotDirectError(f"{name}: direct decoding does not support this TIFF ({reason})")
    level = TiffLevel(
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
