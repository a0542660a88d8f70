# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tral_monai.annotations import text_file
from tral_monai.annotations.text_file import read_text
from tral_monai.errors import AnnotationError


def test_a_file_is_read_up_to_a_limit_also_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "MAX_BYTES", 2**20)
    plain, packed = tmp_path / "a.xml", tmp_path / "b.xml.gz"
    plain.write_bytes(b"x" * 2**20)
    packed.write_bytes(gzip.compress(b"y" * 2**20))
    assert len(read_text(plain)) == len(read_text(packed)) == 2**20
    plain.write_bytes(b"x" * (2**20 + 1))
    packed.write_bytes(gzip.compress(bytes(2**26)))
    assert packed.stat().st_size < 2**20
    with pytest.raises(AnnotationError, match=r"^a\.xml: holds more than 1 MB; export fewer objects per file"):
        read_text(plain)
    with pytest.raises(AnnotationError, match=r"^shown\.gz: holds more than 1 MB once unpacked; export fewer"):
        read_text(packed, name="shown.gz")


def test_a_damaged_pack_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(b"<a/>" * 100)[:-9])
    with pytest.raises(AnnotationError, match=r"^a\.xml\.gz: the gzip file is cut off or damaged"):
        read_text(path)
