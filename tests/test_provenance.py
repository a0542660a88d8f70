# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

import tral_monai
from tral_monai.provenance import provenance


def test_it_names_versions_and_time():
    found = provenance()
    assert found["versions"]["tral_monai"] == tral_monai.__version__
    assert found["versions"]["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert found["started_utc"].endswith("+00:00")


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/x/monai/bundle/__main__.py", "run", "--seed", "0"], "python -m monai.bundle run --seed 0"),
        (["/opt/x/tral_monai/__main__.py", "report"], "python -m tral_monai report"),
        (["/opt/x/scripts/demo.py", "--output-dir", "my demo"], "demo.py --output-dir 'my demo'"),
    ],
)
def test_the_command_can_be_typed_again_and_hides_the_programs_folder(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance()["command"] == command
