# SPDX-License-Identifier: Apache-2.0
"""What an import loads: torch takes seconds, and must not be imported before cuCIM has opened its first slide."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "monai", "ignite", "cucim", "monailabel", "pandas", "matplotlib", "timm"}


def loaded_by(module: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after one import."""
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_package_loads_nothing_heavy():
    loaded = loaded_by("tral_monai, tral_monai.errors, tral_monai.progress, tral_monai.error_chain")
    assert "tral_monai" in loaded
    assert not loaded & (HEAVY | {"numpy"})


@pytest.mark.parametrize(
    "module",
    ["tral_monai.slides", "tral_monai.annotations", "tral_monai.strategies, tral_monai.strategies.registry"],
)
def test_rooms_that_do_without_torch(module):
    loaded = loaded_by(module)
    assert "tral_monai" in loaded
    assert not loaded & {"torch", "monai", "ignite", "cucim", "monailabel"}


def test_all_strategies_do_without_torch():
    loaded = loaded_by("tral_monai.strategies.registry as r; r.strategy_names(); import sys")
    assert "numpy" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("room", ["data", "transforms", "networks", "metrics", "rounds", "inference", "report", "cli"])
def test_a_room_itself_loads_no_torch(room):
    assert not loaded_by(f"tral_monai.{room}") & {"torch", "monai", "ignite", "cucim", "monailabel"}
