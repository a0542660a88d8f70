# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tral_monai.errors import BusyError, ConfigError
from tral_monai.rounds.regions.waiting_lock import waiting_lock


def test_one_waits_for_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with waiting_lock(tmp_path / "l", patience_s=10, busy="busy"):
            order.append("second")

    with waiting_lock(tmp_path / "l", patience_s=1, busy="busy"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    with (
        waiting_lock(tmp_path, patience_s=1, busy="x"),
        pytest.raises(BusyError, match=r"^it is being written \(.*\); ask again in a minute"),
        waiting_lock(tmp_path, patience_s=0.05, busy="it is being written"),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"file.l cannot be written to"),
        waiting_lock(tmp_path / "file" / "l", patience_s=1, busy="x"),
    ):
        pass
