# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

from tral_monai.error_chain import own_error
from tral_monai.errors import CohortError

WRAPPED = """
from tral_monai.error_chain import show_own_error_last
from tral_monai.errors import CohortError

show_own_error_last()
show_own_error_last()
try:
    raise {inner}
except Exception as error:
    raise RuntimeError("Failed to instantiate component") from error
"""


def last_lines(inner: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", WRAPPED.format(inner=inner)], capture_output=True, text=True)
    assert done.returncode == 1
    return [line for line in done.stderr.splitlines() if line][-2:]


def test_the_error_below_two_wrappers():
    own, first, second = CohortError("no rows"), RuntimeError("inner"), RuntimeError("outer")
    first.__cause__, second.__cause__ = own, first
    assert own_error(second) is own
    assert own_error(own) is own


def test_an_error_of_others():
    error = RuntimeError("no memory")
    error.__cause__ = ValueError("1")
    assert own_error(error) is None
    error.__cause__.__cause__ = error
    assert own_error(error) is None
    assert own_error(None) is None


def test_a_process_ends_with_our_own_message():
    assert last_lines("CohortError('no rows')") == [
        "RuntimeError: Failed to instantiate component",
        "CohortError: no rows",
    ]
    assert last_lines("ValueError('1')")[-1] == "RuntimeError: Failed to instantiate component"
