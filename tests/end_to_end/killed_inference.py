# SPDX-License-Identifier: Apache-2.0
"""A bundle's real inference run in a process of its own that may kill itself, as `kill -9` would, at a chosen call."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pandas as pd

from tests.end_to_end.killed_run import arm

# What may differ between two runs over the same slides: when, how long, and the commit, where somebody works on it.
_TIMES = ("seconds", "finished_utc", "software")


def run(bundle: Path, settings: dict[str, Any], kill_at: tuple[str, str, int] | None = None) -> int:
    """Run a bundle's ``inference.yaml`` in a fresh process.

    Args:
        bundle: the bundle's folder.
        settings: overrides of its constants.
        kill_at: ("module:Class.method", "before" or "after", n): SIGKILL around the n-th call of it.

    Returns:
        The exit code; -9 for a killed process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai.bundle", "tral_monai.inference.run", "tral_monai.inference.nuclei.run"])
    process = context.Process(target=_child, args=(bundle, settings, kill_at))
    process.start()
    process.join(timeout=120)
    if process.is_alive():
        process.kill()
        raise TimeoutError("the run did not end in 120 s")
    assert process.exitcode is not None
    return process.exitcode


def _child(bundle: Path, settings: dict[str, Any], kill_at: tuple[str, str, int] | None) -> None:
    import torch

    torch.set_num_threads(1)
    if kill_at is not None:
        arm(*kill_at)
    from tral_monai.rounds.bundle_run import run_workflow

    run_workflow([bundle / "configs" / "inference.yaml"], bundle_root=str(bundle), device="cpu", **settings)


def contents(folder: Path) -> dict[str, Any]:
    """Everything in an output folder that does not say when: bytes of files, records and tables without their times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            record = json.loads(path.read_text(encoding="utf-8"))
            found[path.name] = {key: _timeless(value) for key, value in record.items() if key not in _TIMES}
        elif path.name in ("areas.csv", "counts.csv"):
            table = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="seconds")
            found[path.name] = table.replace({"status": {"kept": "mapped"}}).to_dict("records")
        else:
            found[path.name] = path.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    return {k: v for k, v in value.items() if k not in _TIMES} if isinstance(value, dict) else value


def finished(folder: Path) -> dict[str, int]:
    """Stems of the slides that a run would call finished, and when their records were written (ns)."""
    files = folder.glob("*.json") if folder.is_dir() else []
    return {path.stem: path.stat().st_mtime_ns for path in files if not path.name.startswith(".part-")}
