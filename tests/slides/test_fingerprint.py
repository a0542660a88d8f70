# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tral_monai.slides.fingerprint import slide_fingerprint, slide_sha256, slide_stamp

needs_change_times = pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time of the last change")


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


def large_file(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(65 << 20)
    return path


def change_one_byte(path: Path, position: int) -> None:
    """In place, with the same size and the same time of the last change of content."""
    stat = path.stat()
    with path.open("rb+") as stream:
        stream.seek(position)
        stream.write(b"\1")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_one_byte_in_the_middle_of_a_large_slide_counts(tmp_path: Path) -> None:
    path = large_file(tmp_path / "big.tif")
    before = slide_sha256(path), slide_fingerprint(path)
    change_one_byte(path, (32 << 20) + 12345)
    assert slide_sha256(path) != before[0]
    assert slide_fingerprint(path) == before[1]  # which is why results are not kept by it


def test_the_hash_is_of_sizes_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"tissue")
    assert slide_sha256(tmp_path / "a.tif") == hashlib.sha256(b"6\ntissue").hexdigest()
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"index")
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"one")
    assert slide_sha256(tmp_path / "s.mrxs") == hashlib.sha256(b"5\nindex3\none").hexdigest()


@needs_change_times
def test_the_stamp_changes_with_the_content_though_size_and_time_are_set_back(tmp_path: Path) -> None:
    path = large_file(tmp_path / "big.tif")
    before = slide_stamp(path)
    assert slide_stamp(path) == before
    change_one_byte(path, 32 << 20)
    assert slide_stamp(path) != before


@needs_change_times
def test_the_stamp_of_a_copy_with_its_times_is_another_and_the_hash_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"tissue")
    copy = Path(shutil.copy2(tmp_path / "a.tif", tmp_path / "b.tif"))
    assert slide_stamp(copy) != slide_stamp(tmp_path / "a.tif")
    assert slide_sha256(copy) == slide_sha256(tmp_path / "a.tif")


@needs_change_times
def test_the_stamp_sees_the_folder_of_an_mrxs_slide(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"index")
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"one")
    before = slide_stamp(tmp_path / "s.mrxs")
    change_one_byte(tmp_path / "s" / "Data0000.dat", 1)
    assert slide_stamp(tmp_path / "s.mrxs") != before


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for key in (slide_fingerprint, slide_sha256, slide_stamp):
        if os.name != "nt" or key is not slide_stamp:
            with pytest.raises(FileNotFoundError):
                key(tmp_path / "none.tif")
