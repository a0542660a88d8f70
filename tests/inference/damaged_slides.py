# SPDX-License-Identifier: Apache-2.0
"""Makes whole slides into damaged ones, as broken copies and failing disks do."""

from __future__ import annotations

from pathlib import Path

import tifffile

from tests.inference.colour_slides import break_tile

__all__ = ["break_tile", "cut_short", "directory_offset", "hollow_out", "tile_offset"]


def tile_offset(path: Path, level: int, tile: int) -> tuple[int, int]:
    """Where a tile lies in the file, and its length, in bytes."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        return page.dataoffsets[tile], page.databytecounts[tile]


def directory_offset(path: Path, level: int) -> int:
    """Where the directory of a level lies in the file, in bytes."""
    with tifffile.TiffFile(path) as file:
        return file.pages[level].offset


def hollow_out(path: Path, level: int, tile: int, *, first: float, last: float) -> None:
    """Fill a part of a tile's bytes with zeros, from and to a share of its length."""
    offset, count = tile_offset(path, level, tile)
    start, stop = int(first * count), int(last * count)
    with path.open("r+b") as stream:
        stream.seek(offset + start)
        stream.write(bytes(stop - start))


def cut_short(path: Path, size: int) -> Path:
    """Keep the first bytes only."""
    with path.open("r+b") as stream:
        stream.truncate(size)
    return path
