# SPDX-License-Identifier: Apache-2.0
"""Which model a site works with: the decision to publish, the swap of files, and the way back."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from tral_monai.atomic_file import atomic_path, remove_half_written
from tral_monai.errors import BusyError, ConfigError, LedgerError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.run_lock import RunLock


def shall_publish(new: float | None, old: float | None, *, tolerance: float, metric: str) -> tuple[bool, str]:
    """Whether a new model takes the place of the old one, and why.

    - Nothing to measure by, or no old model that could be measured: yes.
    - The new score is undefined (NaN) and the old one is not: no.
    - The old score is undefined: yes.
    - Else: yes if the new score is at least the old one less ``tolerance``.

    Args:
        new: score of the new model; None where nothing was measured.
        old: score of the published model on the same samples; None where there is none.
        tolerance: what the score may fall by.
        metric: its name, for the reason.

    Returns:
        The decision, and one sentence.
    """
    if new is None:
        return True, "there is nothing held out to measure by"
    if old is None:
        return True, f"it is the first model here, {metric} {_text(new)}"
    if math.isnan(old):
        return True, f"{metric} of the published model is undefined, that of the new one is {_text(new)}"
    if math.isnan(new):
        return False, f"{metric} of the new model is undefined, that of the published one is {_text(old)}"
    limit = f" less {tolerance:g}" if tolerance else ""
    if new >= old - tolerance:
        return True, f"{metric} {_text(new)} is not below the published model's {_text(old)}{limit}"
    return False, f"{metric} {_text(new)} is below the published model's {_text(old)}{limit}"


def publish(task: TaskSite, model: Path, auxiliary: Path | None = None) -> None:
    """Make a model the one that the site works with, and keep the one before it as ``previous.pt``.

    Each file is replaced in one step. After a kill, doing the same again finishes it.

    Args:
        task: the task's site.
        model: the new model.
        auxiliary: the auxiliary detector that was trained with it.

    Raises:
        OutputError: a file cannot be written; the old model stays.
    """
    current = task.current_model
    if current is None or not current.is_file() or file_sha256(current) != file_sha256(model):
        if current is not None and current.is_file():
            _replace(task.previous_path, current)
        _replace(task.model_path, model)
    if auxiliary is not None:
        publish_auxiliary(task, auxiliary)


def publish_auxiliary(task: TaskSite, auxiliary: Path) -> None:
    """Make an auxiliary detector the newest one, and keep the one before it."""
    current = task.auxiliary_path
    if current.is_file():
        if file_sha256(current) == file_sha256(auxiliary):
            return
        _replace(previous_auxiliary(task), current)
    _replace(current, auxiliary)


def previous_auxiliary(task: TaskSite) -> Path:
    """The auxiliary detector before the newest one."""
    return task.folder / "previous_auxiliary.pt"


def published_split(ledger: RegionLedger) -> str:
    """The split of the newest round's evaluation that tells of the published model: ``val`` or ``val_previous``."""
    info = ledger.info()
    return "val" if info.get(f"published_round_{ledger.round}", True) else "val_previous"


def roll_back(task: TaskSite) -> dict[str, Any]:
    """Swap the published model and the one before it, auxiliary detectors included; doing it twice undoes it.

    What is meant is written into the ledger first, so that a kill at any moment leaves one whole model in place, and
    rolling back again finishes the swap that was begun.

    Args:
        task: the task's site.

    Returns:
        ``published_round`` (0 for a model that the lab brought), and what it was before.

    Raises:
        ConfigError: there is no model before the published one.
        BusyError: a training is going on.
    """
    lock = hold_training_lock(task)
    try:
        with task.ledger() as ledger:
            pending = ledger.info().get("rolling_back")
            if pending is None:
                if not task.previous_path.is_file() or not task.model_path.is_file():
                    raise ConfigError(
                        f"there is no {task.name} model to roll back to: previous.pt comes with the second model "
                        "that is published"
                    )
                pending = {
                    "from": file_sha256(task.model_path),
                    "to": file_sha256(task.previous_path),
                    "auxiliary": _auxiliary_swap(task),
                }
                ledger.record_info({"rolling_back": pending})
            _swap(task.model_path, task.previous_path, pending["from"], pending["to"])
            if pending["auxiliary"] is not None:
                _swap(task.auxiliary_path, previous_auxiliary(task), *pending["auxiliary"])
            rounds = {sha256: round_ for round_, sha256 in ledger.table("models")[["round", "sha256"]].to_numpy()}
            before, now = (int(rounds.get(pending[key], 0)) for key in ("from", "to"))
            note = f"rolled back from the model of round {before} to that of round {now}"
            ledger.record_info(
                {
                    "rolling_back": None,
                    "published_round": now,
                    f"published_round_{ledger.round}": False,
                    "training_note": note,
                }
            )
            if now == ledger.round:
                ledger.record_info({f"published_round_{now}": True})
            return {"task": task.name, "rolled_back": True, "published_round": now, "before": before}
    finally:
        lock.release()


def hold_training_lock(task: TaskSite) -> RunLock:
    """Take the lock that a training and a roll-back share; release it when done.

    Raises:
        BusyError: somebody else has it.
    """
    lock = RunLock(task.folder)
    try:
        lock.acquire()
    except LedgerError as error:
        raise BusyError(f"a training of '{task.name}' is going on; wait for its end, or stop it first") from error
    return lock


def _auxiliary_swap(task: TaskSite) -> tuple[str, str] | None:
    files = (task.auxiliary_path, previous_auxiliary(task))
    return (file_sha256(files[0]), file_sha256(files[1])) if all(file.is_file() for file in files) else None


def _swap(one: Path, two: Path, from_: str, to: str) -> None:
    """Bring ``to`` to the first place and ``from_`` to the second, from wherever an earlier attempt got to."""
    if from_ == to:
        return
    aside = one.with_name(f"{one.stem}.swap{one.suffix}")
    if file_sha256(one) == from_:
        _replace(aside, one)
        _replace(one, two)
    if file_sha256(two) == to and aside.is_file():
        aside.replace(two)
    aside.unlink(missing_ok=True)


def _replace(target: Path, source: Path) -> None:
    remove_half_written(target.parent, target.stem)  # by killed runs; a model can be large
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _text(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
