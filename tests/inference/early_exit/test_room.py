# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

import tral_monai.inference.early_exit as room


@pytest.mark.parametrize("name", room.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(room, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'tral_monai\.inference\.early_exit' has no attribute 'Nothing'"):
        room.Nothing  # noqa: B018


def test_importing_the_room_loads_no_torch() -> None:
    code = "import sys, tral_monai.inference.early_exit; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
