# SPDX-License-Identifier: Apache-2.0
"""Run a program of ``benchmark_peers`` under an interpreter and take the JSON that it prints last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark_parts.common import ROOT, SCRIPTS, Options


def run_program(
    name: str, slide: Path, options: Options, *, python: str = sys.executable, timeout: float = 900
) -> dict[str, Any]:
    """Figures of ``null_<name>.py``: tiles, stages with CPU and wall seconds, outputs, versions, memory.

    Raises:
        RuntimeError: the program failed; the message has the end of what it said.
    """
    own = Path(python).resolve() == Path(sys.executable).resolve() and name == "tral_monai"
    environment = {key: value for key, value in os.environ.items() if own or key != "PYTHONPATH"}
    if own:
        environment["PYTHONPATH"] = os.pathsep.join([*filter(None, [environment.get("PYTHONPATH")]), str(ROOT)])
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(SCRIPTS / "benchmark_peers" / f"null_{name}.py"), str(slide), "--out", folder]
        command += ["--threads", str(options.threads), "--batch-size", str(options.batch_size)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, check=False, cwd=folder
        )
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures
