# SPDX-License-Identifier: Apache-2.0
"""What an earlier run wrote of a slide goes before it is done again: no file of another model stays beside the new."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tral_monai.atomic_file import output_errors, remove_half_written
from tral_monai.inference.provenance import RECORD_SUFFIX


def remove_older_files(folder: Path, stem: str, record: Mapping[str, Any]) -> None:
    """Remove a slide's record, the files and folders that it lists, and what is half-written.

    Args:
        folder: the output folder.
        stem: the slide's name without its suffix.
        record: the content of its record, empty where there is none. Only names that begin with the slide's are
            taken from it, and only if a run wrote it: any other JSON file of that name may list anything.

    Raises:
        OutputError: something cannot be removed.
    """
    listed = record.get("files") if "run_key" in record else None
    for name in listed if isinstance(listed, list) else ():
        if not isinstance(name, str) or not name.startswith((f"{stem}.", f"{stem}_")) or name != Path(name).name:
            continue
        _remove(folder / name)
    # Last: a run that is killed in between finds the record again, and that a file of it is missing.
    _remove(folder / f"{stem}{RECORD_SUFFIX}")
    remove_half_written(folder, stem)


def _remove(path: Path) -> None:
    with output_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
