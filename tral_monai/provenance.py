# SPDX-License-Identifier: Apache-2.0
"""What produced a result: versions, commit, command and time. It never holds a folder of the user's machine."""

from __future__ import annotations

import datetime
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import tral_monai

PACKAGES = ("tral_monai", "monai", "torch", "torchvision", "timm", "pytorch-ignite", "numpy", "openslide-python")


def provenance() -> dict[str, Any]:
    """Versions of the packages that matter, the package's git commit, the command line and the time (UTC)."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "command": _command(),
        "started_utc": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _command() -> str:
    """The command line as one would type it again; a program's own folder is left out."""
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
