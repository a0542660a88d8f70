# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are either whole or not there: a killed run leaves nothing that looks finished."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from tral_monai.errors import ConfigError, OutputError

_TOKEN_LENGTH = 12  # hexadecimal digits in the name of what is not whole yet


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and move it there when the block ends without an error.

    Args:
        path: the file to write; an older one is replaced, and stays as it was after an error.

    Yields:
        A path in the same folder with the same suffixes. Its file exists already, empty.

    Raises:
        OutputError: the file cannot be written, such as on a full disk; the message names it.
    """
    target = Path(path)
    # Not mkstemp, whose files are the owner's only: to widen them takes the umask, which no thread can read by itself.
    temporary = temporary_path(target)
    with output_errors(target):
        temporary.touch(exist_ok=False)
    try:
        with output_errors(target):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to write into, and move it there when the block ends without an error.

    Args:
        path: the folder to write; an older one is replaced as a whole, and stays as it was after an error.

    Yields:
        An empty folder beside it.

    Raises:
        OutputError: the folder cannot be written, such as on a full disk; the message names it.
    """
    target = Path(path)
    temporary, older = temporary_path(target), temporary_path(target)
    with output_errors(target):
        temporary.mkdir()
    try:
        with output_errors(target):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as stream:
                        os.fsync(stream.fileno())
            # A folder cannot replace one that holds files. Between the two moves there is none: unfinished, not mixed.
            if target.exists():
                target.rename(older)
            temporary.rename(target)
    finally:
        for left in (temporary, older):
            shutil.rmtree(left, ignore_errors=True)


def temporary_path(path: str | os.PathLike[str]) -> Path:
    """A new name beside ``path`` for what is not whole yet; :func:`remove_half_written` knows it. Makes no file."""
    target = Path(path)
    return target.with_name(f".part-{uuid.uuid4().hex[:_TOKEN_LENGTH]}-{target.name}")


@contextlib.contextmanager
def output_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Tell errors of the file system as errors of one output.

    Args:
        path: the file or folder that the block writes.

    Raises:
        OutputError: the block raised an ``OSError``, or an ``OutputError`` of a file inside of this one.
    """
    target = Path(path)
    try:
        yield
    except OSError as error:
        inner = error.__cause__ if isinstance(error, OutputError) else None  # of a writer that is atomic itself
        cause = inner if isinstance(inner, OSError) else error
        raise OutputError(
            f"cannot write {target.name}: {cause.strerror or cause}; check that the folder '{target.parent}' is there, "
            "may be written to and has free space, then run the same command again"
        ) from cause


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make an output folder and try to write into it.

    Args:
        folder: the folder, made with its parents where it does not exist.

    Returns:
        The folder.

    Raises:
        ConfigError: it is a file, or nothing can be written there.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"the output folder '{path}' cannot be written to ({error.strerror}); choose another with output_dir"
        ) from error
    return path


def remove_half_written(folder: str | os.PathLike[str], stem: str) -> None:
    """Remove what a killed run left half-written of files and folders whose names begin alike.

    Args:
        folder: the output folder.
        stem: first part of the file names, such as a slide's name without its suffix.
    """
    # Exactly as temporary_path() names them: a slide "a" must not lose what another run is writing of a slide "b-a".
    named = re.compile(rf"\.part-[0-9a-f]{{{_TOKEN_LENGTH}}}-{re.escape(stem)}[._].*", re.DOTALL)
    for left in [path for path in Path(folder).iterdir() if named.fullmatch(path.name)]:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
