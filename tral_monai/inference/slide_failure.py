# SPDX-License-Identifier: Apache-2.0
"""What a run says of a slide that failed: with a remedy, and without folders, which may hold names of patients."""

from __future__ import annotations

import re
from pathlib import Path

from tral_monai.errors import MissingMppError, SlideError

_QUOTED = re.compile(r"""(['"])(?:[A-Za-z]:)?[\\/][^'"]*[\\/]([^'"\\/]*)\1""")
_BARE = re.compile(r"(?<![\w./\\~])(?:~|[A-Za-z]:)?[\\/](?:[^\\/\s'\"]+[\\/])+")


def failure_text(error: SlideError, path: Path) -> str:
    """What to write of a slide that failed into tables, which are passed on.

    Args:
        error: what was raised.
        path: the slide.

    Returns:
        Its message, with the option to give where the slide records no mpp; of paths only the file names are left.
    """
    if isinstance(error, MissingMppError):
        name = str(error).split(":")[0]
        return (
            f"{name}: the file records no micrometres per pixel; give the scanner's value with --mpp, such as "
            "--mpp 0.25 for a 40x scan or --mpp 0.5 for 20x"
        )
    return without_folders(str(error), path)


def without_folders(message: str, path: Path) -> str:
    """Leave only the names of files of all absolute paths in a text.

    Args:
        message: the text.
        path: the slide, whose folder may hold blanks and is known.
    """
    for folder in {f"{path.resolve().parent}/", f"{path.absolute().parent}/", f"{path.parent}/"}:
        if folder not in ("./", "/"):
            message = message.replace(folder, "")
    return _BARE.sub("", _QUOTED.sub(r"\1\2\1", message))


def unexpected_text(name: str, error: Exception) -> str:
    """What to write of an error that nobody foresaw: nothing is known of what its message holds.

    Args:
        name: file name of the slide.
        error: what was raised.

    Returns:
        The kind of error, with its message only where no part of that can be a path.
    """
    message = str(error)
    told = f": {message}" if message and not re.search(r"[\\/]", message) else ""
    return f"{name}: {type(error).__name__}{told}; see the log"
