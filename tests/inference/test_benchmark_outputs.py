# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_outputs.py"


def test_every_writer_is_measured(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--tiles",
        "500",
        "--nuclei",
        "300",
        "--features",
        "8",
        "--overlay-px",
        "100",
    ]
    command += ["--json", str(tmp_path / "figures.json"), "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "500 tiles with tissue, salt and pepper" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    for kind in ("classifier", "salt and pepper"):
        rows = figures[kind]
        default = {"class map PNG", "merged GeoJSON", "OME-Zarr", "overlay PNG", "areas row and record"}
        assert default | {"together", "json.dumps, one polygon per tile", "GeoJSON (per_tile)"} <= set(rows)
        assert rows["json.dumps, one polygon per tile"]["times_faster"] == 1.0
        assert all(row["cpu_seconds"] > 0 for row in rows.values())
        assert rows["together"]["written_mb"] > rows["merged GeoJSON"]["written_mb"] > 0
    squares = json.loads((tmp_path / "out" / "classifier" / "GeoJSON" / "t.geojson").read_text())["features"]
    assert len(squares) == 500  # no tile is lost, analysed or not
    assert {"GeoJSON", "CSV", "overlay PNG", "together"} <= set(figures["nuclei_files"])
