# SPDX-License-Identifier: Apache-2.0
"""Names that come over the network and become file names: which are allowed, and what lies inside of a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tral_monai.errors import ConfigError

_TAG = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 200  # of a file name's 255 bytes, suffixes and a temporary prefix need some


def check_name(name: str, *, strict: bool = True) -> str:
    """A name that may become a file name in a folder.

    Args:
        name: what came.
        strict: raise where it is not allowed; else return an empty text.

    Raises:
        ConfigError: it holds a path separator or a control character, begins with a dot, is empty or too long.
    """
    bad = (
        not name
        or name.startswith(".")
        or any(character in "/\\:" or not character.isprintable() for character in name)
        or len(name.encode("utf-8", "surrogatepass")) > _LONGEST
    )
    if bad and strict:
        raise ConfigError(
            f"expected the name of an image, without path separators, colons, control characters or a leading dot and "
            f"at most {_LONGEST} bytes long, but {name[:80]!r} came"
        )
    return "" if bad else name


def check_tag(tag: str, *, strict: bool = True) -> str:
    """A tag that may become the name of a folder.

    Args:
        tag: what came.
        strict: raise where it is not allowed; else return an empty text.

    Raises:
        ConfigError: it holds anything but letters, digits, ``_`` and ``-``.
    """
    good = bool(tag) and len(tag) <= _LONGEST and _TAG.fullmatch(tag) is not None
    if not good and strict:
        raise ConfigError(f"a tag may hold letters, digits, _ and - only, such as 'final', but {str(tag)[:80]!r} came")
    return tag if good else ""


def check_mapping(value: object, what: str) -> dict[str, Any]:
    """A JSON object that came with a request, as a dictionary of its own; None is an empty one.

    Args:
        value: what came.
        what: what it is, for the message.

    Raises:
        ConfigError: it is something else.
    """
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"expected {what} as a JSON object such as {{}}, but {str(value)[:80]!r} came")
    return dict(value or {})


def inside(path: Path, folder: Path) -> bool:
    """Whether a path, all links followed, lies in a folder."""
    return path.resolve().is_relative_to(folder.resolve())
