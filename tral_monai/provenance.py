# SPDX-License-Identifier: Apache-2.0
"""What produced a result: versions, commit, command and time.

The command is kept as it was typed, with the paths in it: it stands in the ledger, which is the user's own file. What
is passed on, such as a report, goes through :func:`without_folders` first.
"""

from __future__ import annotations

import datetime
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import tral_monai

PACKAGES = ("tral_monai", "monai", "torch", "torchvision", "timm", "pytorch-ignite", "numpy", "openslide-python")
# A path from the root, of a drive or of a share; a single slash inside a word is not one.
_PATH = re.compile(r"(?<![\w.~:/\\-])(?:~|[A-Za-z]:)?[\\/](?:[^\\/\s'\",;\[\]]+[\\/])+([^\\/\s'\",;\[\]]*)")


def provenance() -> dict[str, Any]:
    """Versions of the packages that matter, the package's git commit, the command line and the time (UTC)."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "command": _command(),
        "started_utc": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def without_folders(value: Any) -> Any:
    """A JSON value with every absolute path cut to its last part.

    A report is passed on: it names files, never the folders of the machine that it was made on.

    Args:
        value: text, or mappings and lists of it; other values come back as they are.
    """
    if isinstance(value, str):
        return _PATH.sub(lambda found: f"…/{found.group(1)}", value)
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return value


def _command() -> str:
    """The command line as one would type it again; of the program itself only its name."""
    program, *arguments = sys.argv or [""]
    parts = Path(program).parts
    name = Path(program).name
    if name == "__main__.py":
        name = "python -m " + ("monai.bundle" if parts[-3:-1] == ("monai", "bundle") else parts[-2])
    return " ".join([name, *(shlex.quote(argument) for argument in arguments)])


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of the checkout that the package is imported from, with ``-dirty`` for local changes; None without one."""
    root = Path(tral_monai.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        describe = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return describe.stdout.strip()
