# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there: a run killed while writing leaves nothing that looks finished."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from tral_monai.errors import ConfigError, OutputError


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
    temporary = target.with_name(f".part-{uuid.uuid4().hex[:12]}-{target.name}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _output_error(target, error) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        inner = error.__cause__ if isinstance(error, OutputError) else None  # of a writer that is atomic itself
        cause = inner if isinstance(inner, OSError) else error
        raise _output_error(target, cause) from cause
    finally:
        temporary.unlink(missing_ok=True)


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
    """Remove what a killed run left half-written of files whose names begin alike.

    Args:
        folder: the output folder.
        stem: first part of the file names, such as a slide's name without its suffix.
    """
    for left in Path(folder).glob(f".part-*-{glob.escape(stem)}[._]*"):
        left.unlink(missing_ok=True)


def _output_error(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {target.name}: {error.strerror or error}; check that the folder '{target.parent}' is there, may "
        "be written to and has free space, then run the same command again"
    )
