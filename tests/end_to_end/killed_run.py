# SPDX-License-Identifier: Apache-2.0
"""A real active-learning run in a process of its own that kills itself, as `kill -9` would, at a chosen call."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).parents[2] / "bundles" / "pathology_multiscale_tissue_classification"

# Real slides, network, training and ledger; only small: random frozen features and three epochs a round.
SETTINGS: dict[str, Any] = {
    "bundle_root": str(BUNDLE),
    "rounds": 3,
    "budget": 6,
    "initial_per_class": 2,
    "seed": 7,
    "device": "cpu",
    "backbone": "timm:mobilenetv3_small_050",
    "hidden": [],
    "frozen": True,
    "feature_norm": "batch",
    "optimizer_name": "AdamW",
    "optimizer_options": {},
    "learning_rate": 1.0e-3,
    "batch_size": 8,
    "max_epochs": 3,
    "augment": False,
}


def run(settings: dict[str, Any], kill_at: tuple[str, str, int] | None = None) -> int:
    """Run the bundle's active learning in a fresh process.

    Args:
        settings: overrides of the ``active_learning.yaml`` in ``bundle_root``.
        kill_at: ("module:Class.method", "before" or "after", n): SIGKILL around the n-th call of it.

    Returns:
        The exit code; -9 for a killed process.
    """
    context = multiprocessing.get_context("forkserver")
    steps = ("train_handler", "nuclei.train_handler", "nuclei.evaluate_handler", "nuclei.query_handler")
    preload = ["monai.bundle", "tral_monai.report.handler", *(f"tral_monai.rounds.{step}" for step in steps)]
    context.set_forkserver_preload(preload)
    process = context.Process(target=_child, args=(settings, kill_at))
    process.start()
    process.join(timeout=240)
    if process.is_alive():
        process.kill()
        raise TimeoutError("the run did not end in 240 s")
    assert process.exitcode is not None
    return process.exitcode


def _child(settings: dict[str, Any], kill_at: tuple[str, str, int] | None) -> None:
    import torch

    torch.set_num_threads(1)
    if kill_at is not None:
        arm(*kill_at)
    from tral_monai.rounds.bundle_run import run_workflow

    run_workflow([Path(settings["bundle_root"]) / "configs" / "active_learning.yaml"], **settings)


def arm(target: str, when: str, n: int) -> None:
    """Let this process be killed around the n-th call of ``module:Class.method``, ``before`` or ``after`` it."""
    module_name, _, path = target.partition(":")
    owner_name, _, method_name = path.rpartition(".")
    module = importlib.import_module(module_name)
    owner = functools.reduce(getattr, owner_name.split("."), module) if owner_name else module
    method: Callable[..., Any] = getattr(owner, method_name)
    calls = 0

    @functools.wraps(method)
    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == n and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method_name, killing)
