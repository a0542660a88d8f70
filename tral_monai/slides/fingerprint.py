# SPDX-License-Identifier: Apache-2.0
"""The content of a slide as a short key: what a result or cached features belong to, whatever the file is called.

Two keys for two uses. :func:`slide_sha256` reads every byte: a finished result is only kept where the slide is the
same to the last bit, since a slide that was damaged and copied again differs in a few blocks only.
:func:`slide_fingerprint` samples large files: caches of what was computed from pixels that did decode can live with
that, and are looked up often.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_READ_WHOLE_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 256, 64 << 10
_PIECE_BYTES = 1 << 20
_DICOM_HEADER_BYTES = 256 << 10
# Series Instance UID (0020,000E), a UI value with an explicit length in little endian.
_DICOM_SERIES = re.compile(rb"\x20\x00\x0e\x00UI(?P<length>..)", re.DOTALL)


def slide_fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a slide's content: of all of it up to 64 MiB, else of its size and 256 pieces spread over it.

    A slide that is scanned, cut or converted again differs nearly everywhere; one that was repaired in a few places may
    not be told from the damaged one, for which there is :func:`slide_sha256`. Of an MRXS slide, the files in its folder
    count in the same way; of a DICOM slide, the files of its series that lie beside it. Names and times do not matter,
    so copies are equal.

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


def slide_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of all bytes of a slide, about a second per gigabyte besides reading it.

    The same files count as for :func:`slide_fingerprint`; names and times do not.

    Args:
        path: the slide file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in _files(Path(path)):
        digest.update(f"{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def slide_stamp(path: str | os.PathLike[str]) -> str | None:
    """What changes whenever a slide's content does, without reading it: to hash a slide once and not in every run.

    It is made of the size, the time of the last change of content and the time of the last change of any kind (which
    no program can set back) of the same files that :func:`slide_sha256` reads, and their numbers in the file system.
    Equal stamps mean equal content; other stamps mean nothing, since copying and renaming change them too.

    Args:
        path: the slide file.

    Returns:
        64 hexadecimal digits; None on Windows, which keeps no time that cannot be set back.

    Raises:
        OSError: a file is not there.
    """
    if os.name == "nt":
        return None
    digest = hashlib.sha256()
    for file in _files(Path(path)):
        found = file.stat()
        digest.update(f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode())
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
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
            return
        for number in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
