# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

import tral_monai
from tral_monai.provenance import provenance, without_folders


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


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("/home/someone/study/cohort.csv", "…/cohort.csv"),
        ("~/study/cohort.csv", "…/cohort.csv"),
        (r"C:\Users\someone\cohort.csv", "…/cohort.csv"),
        ("run --cohort /home/a/cohort.csv --out=/tmp/b/run", "run --cohort …/cohort.csv --out=…/run"),
        ("['/home/a/x.yaml','configs/y.yaml']", "['…/x.yaml','configs/y.yaml']"),
        ("runs/x and 3/4 of it", "runs/x and 3/4 of it"),
        ("tral_monai.rounds.engine.RoundEngine", "tral_monai.rounds.engine.RoundEngine"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_folders_of_the_machine_are_cut(text, cut):
    assert without_folders(text) == cut
    assert without_folders({"a": [text, 3]}) == {"a": [cut, 3]}
