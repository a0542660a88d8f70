# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import sys

import pytest

from tral_monai.errors import LedgerError
from tral_monai.rounds.run_lock import RunLock

HOLD = """
import sys, time
from tral_monai.rounds.run_lock import RunLock
RunLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_the_second_process_is_refused_until_the_first_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match=f"another process \\(id {holder.pid}\\) is working in"):
            RunLock(tmp_path).acquire()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunLock(tmp_path) as lock:
        assert lock.path.read_text() == str(os.getpid())


def test_release_without_the_lock_does_nothing(tmp_path):
    RunLock(tmp_path).release()
