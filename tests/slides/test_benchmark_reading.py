# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_reading.py"


def test_benchmark_of_a_generated_slide(tmp_path):
    figures_path = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), str(tmp_path / "generated.tif"), "--generate", "4096"]
    command += ["--triplets", "40", "--repeats", "1", "--json", str(figures_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("generated.tif: 4096 x 4096 px, 40 triplets, 1 rounds")
    figures = json.loads(figures_path.read_text())
    assert figures["slide"] == "generated.tif"
    assert figures["levels_fit"] is True
    # Half of the 32 x 32 tiles lie on the two tissue squares of 2048 px; the mask's edge may take or leave a row.
    assert abs(figures["memory"]["triplets"] - 512) <= 4 * 16
    assert {"naive OpenSlide", "blocks, tiff", "blocks, openslide"} <= set(figures["plans"])
    for plan in figures["plans"].values():
        assert plan["identical_to_naive"] is True
        assert plan["triplets_per_cpu_second"] > 0
    assert figures["plans"]["naive OpenSlide"]["times_naive"] == 1.0
