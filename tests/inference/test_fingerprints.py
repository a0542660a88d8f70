# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from tral_monai.inference.fingerprints import run_key, slide_fingerprint, weights_sha256


def test_a_small_slide_is_hashed_whole(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"tissue")
    assert slide_fingerprint(tmp_path / "a.tif") == hashlib.sha256(b"6\ntissue").hexdigest()
    (tmp_path / "copy.tif").write_bytes(b"tissue")
    assert slide_fingerprint(tmp_path / "copy.tif") == slide_fingerprint(tmp_path / "a.tif")


def test_a_large_slide_is_sampled_from_its_first_to_its_last_byte(tmp_path: Path) -> None:
    size = 65 << 20
    prints = set()
    for change in (None, 0, size // 2, size - 1):
        with (tmp_path / "big.tif").open("wb") as stream:
            stream.truncate(size)
            if change is not None:
                # The middle sample's place is known only to within the distance of two samples: change that much.
                width = size // 255 if change == size // 2 else 1
                stream.seek(change)
                stream.write(b"\1" * width)
        prints.add(slide_fingerprint(tmp_path / "big.tif"))
    assert len(prints) == 4


def test_the_folder_of_an_mrxs_slide_counts(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"index")
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"one")
    before = slide_fingerprint(tmp_path / "s.mrxs")
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"two")
    assert slide_fingerprint(tmp_path / "s.mrxs") != before


def test_another_folder_of_the_same_name_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "s.tif").write_bytes(b"tissue")
    before = slide_fingerprint(tmp_path / "s.tif")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "s.geojson").write_bytes(b"output")
    assert slide_fingerprint(tmp_path / "s.tif") == before


def test_weights_count_with_names_and_values() -> None:
    first = torch.nn.BatchNorm1d(3)
    same = torch.nn.BatchNorm1d(3)
    assert weights_sha256(first) == weights_sha256(same)
    with torch.no_grad():
        same.running_mean[1] += 1e-3  # type: ignore[index]
    assert weights_sha256(first) != weights_sha256(same)
    assert weights_sha256(torch.nn.Sequential(first)) != weights_sha256(first)


def test_settings_in_any_order_give_one_key() -> None:
    assert run_key({"a": 1, "b": [1, 2]}) == run_key({"b": [1, 2], "a": 1})
    assert run_key({"a": 1}) != run_key({"a": 2})
