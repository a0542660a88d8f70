# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.export.sums import check_sums, write_sums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"weights")
    (tmp_path / "LICENSE").write_bytes(b"text")
    write_sums(tmp_path)
    return tmp_path


def test_lines_are_those_of_sha256sum(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(b).hexdigest()}  {n}" for b, n in ((b"text", "LICENSE"), (b"weights", "models/model.pt"))
    ]
    if shutil.which("sha256sum"):
        assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 0


def test_a_whole_folder(folder):
    assert check_sums(folder) == ["LICENSE", "models/model.pt"]
    assert check_sums(folder, "models/*.pt") == ["models/model.pt"]


def test_a_changed_file(folder):
    (folder / "models" / "model.pt").write_bytes(b"Weights")
    with pytest.raises(CheckpointError, match=r"not as it was exported: models/model.pt changed; copy it again"):
        check_sums(folder, "models/*.pt")


def test_a_missing_file(folder):
    (folder / "models" / "model.pt").unlink()
    (folder / "LICENSE").write_text("other")
    with pytest.raises(CheckpointError, match=r"models/model.pt missing; LICENSE changed"):
        check_sums(folder)


@pytest.mark.parametrize("text", [None, "", "abc  LICENSE\n"])
def test_no_sums(folder, text):
    (folder / "SHA256SUMS").unlink()
    if text is not None:
        (folder / "SHA256SUMS").write_text(text)
    with pytest.raises(ConfigError, match="SHA256SUMS"):
        check_sums(folder)
