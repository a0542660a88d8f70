# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tral_monai.inference.termination import orderly_termination

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a program can send itself")


def test_the_signal_becomes_an_exit_that_cleans_up() -> None:
    cleaned = []

    def work() -> None:
        with orderly_termination():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                cleaned.append(True)

    with pytest.raises(SystemExit) as raised:
        work()
    assert raised.value.code == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_program_keeps_its_own_handler() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with orderly_termination():
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_another_thread_leaves_it_alone() -> None:
    inside: list[object] = []

    def work() -> None:
        with orderly_termination():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [signal.SIG_DFL]
