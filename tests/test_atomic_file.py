# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tral_monai.atomic_file import atomic_folder, atomic_path, prepare_folder, remove_half_written, temporary_path
from tral_monai.errors import ConfigError, OutputError


def test_the_file_appears_whole_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert not target.exists()
        assert temporary.suffix == ".png"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_others_may_read_it_as_the_umask_says_also_from_threads(tmp_path: Path) -> None:
    def write(number: int) -> int:
        with atomic_path(tmp_path / str(number)) as temporary:
            temporary.write_bytes(b"x")
        return stat.S_IMODE((tmp_path / str(number)).stat().st_mode)

    before = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as executor:
            assert set(executor.map(write, range(200))) == {0o640}
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_an_error_leaves_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        write_half()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_with_the_files_name(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write map\.png: No space left .* has free space, then run the same"),
        atomic_path(tmp_path / "map.png"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_atomic_itself_is_told_by_the_outer_name(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"^cannot write map\.geojson: No space left") as caught,
        atomic_path(tmp_path / "map.geojson") as path,
        atomic_path(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(caught.value.__cause__, OSError)
    assert not isinstance(caught.value.__cause__, OutputError)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write map\.png"), atomic_path(tmp_path / "none" / "map.png"):
        pass


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert prepare_folder(folder) == folder


def test_only_the_slides_own_half_written_files_are_removed(tmp_path: Path) -> None:
    token = "0123456789ab"
    keep = [f".part-{token}-{rest}" for rest in ("other.geojson", "s[1]2.json", "b-s[1].json", "s1.json")]
    keep += ["s[1].geojson", ".part-1-s[1].geojson"]  # the second is nothing that temporary_path() names
    for name in [*keep, f".part-{token}-s[1].geojson", temporary_path(tmp_path / "s[1]_classes.png").name]:
        (tmp_path / name).write_text("")
    remove_half_written(tmp_path, "s[1]")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(keep)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .* choose another with output_dir"):
        prepare_folder(tmp_path / "maps")


def test_a_folder_appears_whole_at_the_end_and_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    (target / "old").mkdir(parents=True)
    with atomic_folder(target) as temporary:
        (temporary / "0").mkdir()
        (temporary / "0" / "chunk").write_bytes(b"new")
        assert (target / "old").is_dir()
    assert [path.relative_to(target).as_posix() for path in sorted(target.rglob("*"))] == ["0", "0/chunk"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_older_folder(tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    target.mkdir()
    (target / "old").write_bytes(b"old")

    def write_half() -> None:
        with atomic_folder(target) as temporary:
            (temporary / "new").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write map\.zarr: No space left .* has free space"):
        write_half()
    assert list(target.iterdir()) == [target / "old"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_in_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write map\.zarr"), atomic_folder(tmp_path / "none" / "map.zarr"):
        pass


def test_a_killed_writer_leaves_a_folder_that_is_removed_and_never_the_target(tmp_path: Path) -> None:
    target = tmp_path / "s_probabilities.ome.zarr"
    program = (
        "import os, sys\n"
        "from tral_monai.atomic_file import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'chunk').write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(target)], check=False).returncode == 9
    assert not target.exists()
    (left,) = tmp_path.iterdir()
    assert (left / "chunk").read_bytes() == b"half"
    remove_half_written(tmp_path, "s")
    assert list(tmp_path.iterdir()) == []
