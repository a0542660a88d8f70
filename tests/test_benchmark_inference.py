# SPDX-License-Identifier: Apache-2.0
"""scripts/benchmark_inference.py on small slides: its figures are worth nothing, but its counts must be right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark_inference.py"


def run(tmp_path: Path, *options: str) -> tuple[dict[str, dict[str, object]], str]:
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), "--json", str(tmp_path / "x.json"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "x.json").read_text())["parts"], done.stdout


def test_null_part_counts_the_tiles_of_the_slide_and_reports_a_peer_that_does_not_run(tmp_path):
    parts, said = run(
        tmp_path, "--parts", "null", "--side", "4096", "--repeats", "1", "--peer", f"lazyslide={sys.executable}"
    )
    (table,) = parts["null"]["tables"]
    (row,) = table["rows"]
    assert row["tiles"] == 512  # two of four squares of 16 x 16 tiles are tissue
    assert row["ratio (CPU-s)"] == 1.0
    assert row["tiles per CPU-s"] > 0
    assert row["outputs"] == (
        "areas.csv, generated_4096.geojson, generated_4096.json, generated_4096_classes.png, generated_4096_overlay.png"
    )
    assert "`lazyslide` did not run" in said
