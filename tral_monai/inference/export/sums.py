# SPDX-License-Identifier: Apache-2.0
"""SHA256SUMS of an exported folder, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.file_hash import file_sha256

NAME = "SHA256SUMS"
_LINE = re.compile(r"^([0-9a-f]{64})  (\S.*)$")


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over every other file below a folder.

    Args:
        folder: the folder.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: str | os.PathLike[str], pattern: str = "*") -> list[str]:
    """Check that files are the ones that were exported.

    Args:
        folder: an exported folder.
        pattern: which of its files, such as ``models/*.pt``.

    Returns:
        The files that were checked.

    Raises:
        ConfigError: the folder has no ``SHA256SUMS``, or it is not one.
        CheckpointError: a file is missing or changed.
    """
    root = Path(folder)
    try:
        lines = (root / NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"'{root}' must hold {NAME}, as scripts/export.py writes it, but it cannot be read"
        ) from error
    found = [match.groups() for line in lines if (match := _LINE.match(line))]
    if len(found) != len(lines) or not found:
        raise ConfigError(f"{root / NAME} must have lines of a SHA-256 and a file, but has others; export again")
    checked = [(digest, name) for digest, name in found if fnmatch.fnmatch(name, pattern)]
    missing = [name for _, name in checked if not (root / name).is_file()]
    changed = [name for digest, name in checked if name not in missing and file_sha256(root / name) != digest]
    if missing or changed:
        said = [f"{', '.join(names)} {what}" for names, what in ((missing, "missing"), (changed, "changed")) if names]
        raise CheckpointError(
            f"the exported folder '{root.name}' is not as it was exported: {'; '.join(said)}; copy it again"
        )
    return [name for _, name in checked]
