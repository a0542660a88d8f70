# SPDX-License-Identifier: Apache-2.0
"""Trainings that several runs have in common, kept by what went into them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import tral_monai
from tral_monai.atomic_file import atomic_path
from tral_monai.file_hash import file_sha256
from tral_monai.provenance import provenance
from tral_monai.rounds.ledger import ModelRecord

logger = logging.getLogger(__name__)

# What a trained model depends on besides its settings: the parts of this package that read, change and learn.
_CODE = ("slides", "data", "transforms", "losses", "networks", "metrics")
_PLACES = ("output_dir",)


class SharedTrainings:
    """A folder of trained models, named by a hash of all that went into the training.

    Arms of a comparison start from the same labels with the same seed, so that their first training is the same; with a
    shared folder it is done once, and all arms start from the very same weights. What counts is the content of the
    configurations, of the samples' tables and of the checkpoint to start from, every override, the code of this package
    and the versions of those it stands on. Code that configurations bring from elsewhere does not count. Two
    runs that train the same thing at the same moment both do the work, and the later file stays.

    Args:
        folder: made where it does not exist; runs may share it, also over time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def key(self, config_files: Sequence[str], overrides: Mapping[str, Any], files: Sequence[str]) -> str:
        """The name of a training.

        Args:
            config_files: configurations, later ones over earlier ones.
            overrides: values for their ids. Paths of files that are named in ``files`` count by their content, and
                where the training writes does not count.
            files: ids whose value is the path of a file, or None.
        """
        content = {
            "configs": [file_sha256(path) for path in config_files],
            "overrides": {name: value for name, value in overrides.items() if name not in {*files, *_PLACES}},
            "files": {name: file_sha256(overrides[name]) if overrides[name] else None for name in files},
            "code": _code_sha256(),
            "versions": provenance()["versions"],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def fetch(self, key: str, target: Path) -> ModelRecord | None:
        """Copy a model to ``target``, whose record comes back with an empty path; None where there is none.

        A model whose file does not fit its note, as after a kill, is left alone and trained again.
        """
        model, note = self._paths(key)
        if not (model.is_file() and note.is_file()):
            return None
        with atomic_path(target) as temporary:
            shutil.copyfile(model, temporary)
        record = ModelRecord("", **json.loads(note.read_text()))
        if file_sha256(target) == record.sha256:
            logger.info("took the training %s from %s", key[:12], self.folder)
            return record
        target.unlink()
        return None

    def keep(self, key: str, source: Path, record: ModelRecord) -> None:
        """Keep a trained model."""
        model, note = self._paths(key)
        with atomic_path(model) as temporary:
            shutil.copyfile(source, temporary)
        with atomic_path(note) as temporary:
            temporary.write_text(
                json.dumps({name: value for name, value in record._asdict().items() if name != "path"})
            )

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.pt", self.folder / f"{key}.json"


@cache
def _code_sha256() -> str:
    digest = hashlib.sha256()
    root = Path(tral_monai.__file__).parent
    for path in sorted(path for room in _CODE for path in (root / room).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
