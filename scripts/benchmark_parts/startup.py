# SPDX-License-Identifier: Apache-2.0
"""Seconds from ``python -m monai.bundle run`` to the first tile, less those of importing torch and MONAI."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark_parts.common import ROOT, SCRIPTS, Options, Spent, Table, take_turns
from benchmark_parts.networks import tissue_checkpoint

_BUNDLE = ROOT / "bundles" / "pathology_multiscale_tissue_classification"
_IMPORTS = "import torch, monai.bundle, time; print(time.time(), time.process_time())"


def run(options: Options) -> list[Table]:
    slide = options.slide_path(512).resolve()
    checkpoint = tissue_checkpoint(options, slide)
    plans = {
        "import torch, monai.bundle": lambda: _imports(options),
        "to the first tile": lambda: _to_first_tile(options, slide, checkpoint),
    }
    for plan in plans.values():
        plan()  # the files come into the page cache, and Python writes its bytecode
    rounds = take_turns(plans, options.repeats)
    base, ours = rounds.values()
    rows: list[dict[str, object]] = [
        {
            "": name,
            "wall s": round(statistics.median(one.wall for one in spent), 2),
            "CPU-s": round(statistics.median(one.cpu for one in spent), 2),
        }
        for name, spent in rounds.items()
    ]
    differences = [(a.wall - b.wall, a.cpu - b.cpu) for a, b in zip(ours, base, strict=True)]
    rows.append(
        {
            "": "beyond the imports",
            "wall s": round(statistics.median(wall for wall, _ in differences), 2),
            "CPU-s": round(statistics.median(cpu for _, cpu in differences), 2),
        }
    )
    mib = checkpoint.stat().st_size / 2**20
    return [Table("Start-up: from the command to the first tile", rows, [f"Checkpoint of {mib:.0f} MiB."])]


def _environment(options: Options) -> dict[str, str]:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(SCRIPTS)])
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    return environment


def _imports(options: Options) -> Spent:
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True, env=_environment(options)
    )
    ended, cpu = map(float, done.stdout.split())
    return Spent(cpu, ended - started)


def _to_first_tile(options: Options, slide: Path, checkpoint: Path) -> Spent:
    with tempfile.TemporaryDirectory() as folder:
        listening = Path(folder) / "listening.json"
        listening.write_text(json.dumps({"+handlers": [{"_target_": "benchmark_parts.first_tile.FirstTile"}]}))
        files = [str(_BUNDLE / "configs" / "inference.yaml"), str(listening)]
        command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(_BUNDLE)]
        command += ["--config_file", str(files), "--checkpoint", str(checkpoint), "--slides", str(slide)]
        command += ["--output_dir", str(Path(folder) / "maps"), "--device", "cpu"]
        started = time.time()
        done = subprocess.run(
            command, capture_output=True, text=True, env=_environment(options), check=False, cwd=folder
        )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"first_tile_at"')]
    if done.returncode or not found:
        raise RuntimeError(f"the bundle run ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return Spent(found[0]["cpu_s"], found[0]["first_tile_at"] - started)
