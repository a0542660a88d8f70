# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.side_record import SideRecord


def cut_many(path: Path, first: int) -> None:
    record = SideRecord(path)
    for number in range(first, first + 10):
        with record.change() as sides:
            sides["cuts"][f"s{number}.tif"] = ("x", number)


def test_processes_lose_none_of_each_others_changes(tmp_path: Path) -> None:
    path = tmp_path / "own" / "sides.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=cut_many, args=(path, first)) for first in (0, 10, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(SideRecord(path).load()["cuts"]) == 30


def test_a_change_that_fails_is_not_written(tmp_path: Path) -> None:
    record = SideRecord(tmp_path / "sides.json")

    def fail() -> None:
        with record.change() as sides:
            sides["sides"]["a.tif"] = "val"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert record.load() == {"sides": {}, "cuts": {}}
    (tmp_path / "sides.json").write_text("[")
    with pytest.raises(ConfigError, match=r"sides\.json is damaged"):
        record.load()
