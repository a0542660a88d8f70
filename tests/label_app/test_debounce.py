# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import time

from tral_monai.label_app.debounce import Debounced


def test_many_reports_are_one_act_after_the_last() -> None:
    done = threading.Event()
    times: list[float] = []

    def act() -> None:
        times.append(time.monotonic())
        done.set()

    debounced = Debounced(act, 0.3)
    for _ in range(4):
        debounced.report()
        time.sleep(0.05)
    last = time.monotonic() - 0.05
    assert done.wait(10)
    time.sleep(0.4)
    assert len(times) == 1
    assert times[0] >= last + 0.29


def test_a_report_can_be_taken_back() -> None:
    done = threading.Event()
    debounced = Debounced(done.set, 0.1)
    debounced.cancel()  # of nothing
    debounced.report()
    debounced.cancel()
    assert not done.wait(0.4)
