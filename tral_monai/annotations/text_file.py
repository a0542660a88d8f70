# SPDX-License-Identifier: Apache-2.0
"""Annotation files as text: gzip where the content or the suffix says so, errors that name the file, whole or not."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import AnnotationError

MAX_BYTES = 512 * 1024 * 1024
"""A larger file is refused, also one that is larger once unpacked: a small gzip file may hold any amount of zeros."""


def read_text(path: str | os.PathLike[str], *, name: str = "") -> str:
    """The text of a file, unpacked if its content is gzip, without a byte order mark.

    Args:
        path: the file.
        name: what messages call it; its own name where not given.

    Raises:
        AnnotationError: the file is missing, cut off, no UTF-8 text, or larger than :data:`MAX_BYTES`.
    """
    path = Path(path)
    name = name or path.name
    try:
        with path.open("rb") as stream:
            is_packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            content = (gzip.GzipFile(fileobj=stream) if is_packed else stream).read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise AnnotationError(
                f"{name}: holds more than {MAX_BYTES / 2**20:g} MB{' once unpacked' * is_packed}; export fewer objects "
                "per file"
            )
        return content.decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise AnnotationError(f"{name}: cannot be read ({reason}); check the path {path}") from error
    except (EOFError, zlib.error) as error:
        raise AnnotationError(f"{name}: the gzip file is cut off or damaged ({error}); copy it again") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{name}: expected UTF-8 text, but byte {error.start} is none; export the annotations again"
        ) from error


@contextlib.contextmanager
def write_text(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A text stream that becomes the file ``path`` when the block ends without an error; ``.gz`` is packed.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_path(path) as temporary, contextlib.ExitStack() as stack:
        binary: BinaryIO = stack.enter_context(temporary.open("wb"))
        if temporary.suffix == ".gz":  # no time stamp inside: the same annotations give the same bytes
            packed = stack.enter_context(gzip.GzipFile(fileobj=binary, mode="wb", filename="", mtime=0))
            binary = cast(BinaryIO, packed)
        yield stack.enter_context(io.TextIOWrapper(binary, encoding="utf-8", newline="\n"))
