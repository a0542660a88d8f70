# SPDX-License-Identifier: Apache-2.0
"""The content of a slide as a short key: what a result or cached features belong to, whatever the file is called."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_READ_WHOLE_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 256, 64 << 10
_DICOM_HEADER_BYTES = 256 << 10
# Series Instance UID (0020,000E), a UI value with an explicit length in little endian.
_DICOM_SERIES = re.compile(rb"\x20\x00\x0e\x00UI(?P<length>..)", re.DOTALL)


def slide_fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a slide's content: of all of it up to 64 MiB, else of its size and 256 pieces spread over it.

    Reading gigabytes only to find that a slide is known would cost minutes; a slide that is scanned, cut or converted
    again differs nearly everywhere. Of an MRXS slide, the files in its folder count in the same way; of a DICOM slide,
    the files of its series that lie beside it. Names and times do not matter, so copies are equal.

    Args:
        path: the slide file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in _files(Path(path)):
        _add_file(digest, file)
    return digest.hexdigest()


def _files(main: Path) -> list[Path]:
    """The slide's file, then those that hold the rest of its pixels, by name."""
    if main.suffix.lower() == ".mrxs":
        return [main, *sorted(file for file in main.with_suffix("").rglob("*") if file.is_file())]
    series = _dicom_series(main)
    if series is None:
        return [main]
    beside = sorted(file for file in main.parent.iterdir() if file.is_file() and file.name != main.name)
    return [main, *(file for file in beside if _dicom_series(file) == series)]


def _dicom_series(file: Path) -> bytes | None:
    """The UID that the files of a DICOM slide share; None where the file is no DICOM."""
    with file.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return None
        header = stream.read(_DICOM_HEADER_BYTES)
    found = _DICOM_SERIES.search(header)
    if found is None:
        return None
    return header[found.end() : found.end() + int.from_bytes(found["length"], "little")].rstrip(b"\0 ")


def _add_file(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{size}\n".encode())
    with file.open("rb") as stream:
        if size <= _READ_WHOLE_BYTES:
            while piece := stream.read(1 << 20):
                digest.update(piece)
            return
        for number in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
