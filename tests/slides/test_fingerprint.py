# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from pathlib import Path

from tral_monai.slides.fingerprint import slide_fingerprint


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


def write_dicom(path: Path, series: bytes, pixels: bytes) -> None:
    """A preamble, the series' UID with an explicit length in little endian, and some content."""
    uid = series + b"\0" * (len(series) % 2)
    element = b"\x20\x00\x0e\x00UI" + len(uid).to_bytes(2, "little") + uid
    path.write_bytes(bytes(128) + b"DICM" + element + pixels)


def test_the_other_files_of_a_dicom_series_count(tmp_path: Path) -> None:
    write_dicom(tmp_path / "level0.dcm", b"1.2.3", b"large")
    write_dicom(tmp_path / "level1.dcm", b"1.2.3", b"small")
    before = slide_fingerprint(tmp_path / "level0.dcm")
    write_dicom(tmp_path / "level1.dcm", b"1.2.3", b"SMALL")
    assert slide_fingerprint(tmp_path / "level0.dcm") != before


def test_files_beside_a_dicom_slide_do_not_count(tmp_path: Path) -> None:
    write_dicom(tmp_path / "level0.dcm", b"1.2.3", b"large")
    before = slide_fingerprint(tmp_path / "level0.dcm")
    write_dicom(tmp_path / "other.dcm", b"1.2.34", b"another slide")
    (tmp_path / "notes.txt").write_text("x")
    assert slide_fingerprint(tmp_path / "level0.dcm") == before
