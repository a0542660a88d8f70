# SPDX-License-Identifier: Apache-2.0
import hashlib

from tral_monai.file_hash import file_sha256


def test_a_file_longer_than_a_piece(tmp_path):
    content = bytes(range(256)) * 5000  # 1.28 MB
    (tmp_path / "f").write_bytes(content)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_an_empty_file(tmp_path):
    (tmp_path / "f").touch()
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"").hexdigest()
