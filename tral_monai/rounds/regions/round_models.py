# SPDX-License-Identifier: Apache-2.0
"""The networks of one round at a site: each trained once, by the bundle's ``train.yaml``, and noted when whole."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tral_monai.atomic_file import atomic_path
from tral_monai.error_chain import own_error
from tral_monai.errors import CheckpointError, ConfigError, OutputError, SlideReadError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.regions.round_plan import TRAIN_FILE, VAL_FILE, Log, RoundPlan, read_table
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.train_config import train_values
from tral_monai.rounds.training import MODEL_FILE, run_training, without_engines
from tral_monai.strategies.base import Strategy

AUXILIARY_FILE = "auxiliary.pt"
NOTE_FILE = "trained.json"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def trained(folder: Path, name: str) -> ModelRecord | None:
    """The record of a network that a round has trained already; None unless its file is as it was noted.

    Args:
        folder: the round's folder.
        name: the network's file.
    """
    note = _read_note(folder).get(name)
    if note is None or not (folder / name).is_file() or file_sha256(folder / name) != note["sha256"]:
        return None
    return ModelRecord(**note)


def train_network(task: TaskSite, plan: RoundPlan, strategy: Strategy, role: str, *, log: Log) -> ModelRecord:
    """Train one network of a round, unless it is there already.

    Args:
        task: the task's site.
        plan: what the round learns from; its tables lie in the round's folder.
        strategy: strategy of the query that follows; it may want a head that predicts losses.
        role: ``target``, or the auxiliary detector's role.
        log: gets a line per epoch.

    Returns:
        The record, its path relative to the task's folder.

    Raises:
        ConfigError: a setting is out of range.
        SlideError: a slide cannot be read.
        OutputError: the disk is full.
    """
    folder = task.round_dir(plan.round)
    name = MODEL_FILE if role == "target" else AUXILIARY_FILE
    found = trained(folder, name)
    if found is not None:
        log(f"{name} of round {plan.round} is trained already")
        return found
    own = folder / f"training_{role}"
    shutil.rmtree(own, ignore_errors=True)  # what a killed training left
    own.mkdir(parents=True)
    values = _values(task, plan, strategy, role, own)
    start = _start(task, plan, role)
    if start is not None:
        reason = misfit(task, values, start)
        if reason is None:
            log(f"{role}: training begins with {start.name}")
            values["checkpoint"] = str(start)
        else:
            log(f"{role}: training begins anew, because {start.name} is of another network: {reason[:300]}")
    started = time.monotonic()

    def tell(epoch: int, epochs: int, metrics: Mapping[str, float]) -> None:
        scores = "".join(f", {key} {value:.3f}" for key, value in metrics.items() if key in ("val_loss", "map50"))
        log(f"{role}: epoch {epoch}/{epochs}{scores}, {time.monotonic() - started:.0f} s")

    try:
        outcome = run_training([str(task.train_config)], values, on_epoch=tell)
        if role == "prototype":
            from tral_monai.rounds.nuclei.refit import refit_checkpoint

            samples = read_table(task.name, folder / TRAIN_FILE)
            refit_checkpoint(own / MODEL_FILE, samples, "minimise", task.device)
    except Exception as error:
        _raise_plainly(error, own)
    (own / MODEL_FILE).replace(folder / name)
    record = ModelRecord(
        (folder / name).relative_to(task.folder).as_posix(),
        file_sha256(folder / name),
        round(time.monotonic() - started, 3),
        outcome.epochs,
        outcome.val_loss,
    )
    with atomic_path(folder / NOTE_FILE) as temporary:
        temporary.write_text(json.dumps({**_read_note(folder), name: record._asdict()}), encoding="utf-8")
    shutil.rmtree(own, ignore_errors=True)
    return record


def misfit(task: TaskSite, values: Mapping[str, Any], checkpoint: Path) -> str | None:
    """Why a checkpoint cannot begin a training with these values; None where it can."""
    from monai.bundle.workflows import ConfigWorkflow

    from tral_monai.networks.checkpoint import read_contract

    try:
        contract = read_contract(checkpoint)
        with without_engines():
            workflow = ConfigWorkflow([str(task.train_config)], workflow_type="train", logging_file=False, **values)
            workflow.parser.get_parsed_content("network_def").contract.load_state_dict(contract)
    except CheckpointError as error:
        return str(error)
    except Exception as error:
        _raise_plainly(error, checkpoint)
    return None


def _values(task: TaskSite, plan: RoundPlan, strategy: Strategy, role: str, output_dir: Path) -> dict[str, Any]:
    folder = task.round_dir(plan.round)
    colours = {name: list(colour) for name, colour in task.class_map.colors.items() if name in task.classes}
    values: dict[str, Any] = {
        **task.overlay,
        **plan.values,
        "bundle_root": str(task.bundle),
        "classes": list(task.classes),
        "class_colors": colours or None,
        "train_samples": str(folder / TRAIN_FILE),
        "val_samples": str(folder / VAL_FILE) if (folder / VAL_FILE).is_file() else None,
        "output_dir": str(output_dir),
        "checkpoint": None,
        "device": task.device,
        "seed": _seed(task.site.settings.seed, plan.round, role),
    }
    if task.name == "tissue":
        return {**values, "feature_dir": str(task.folder / "features")}
    from tral_monai.rounds.regions.nucleus_samples import site_fov_mpp

    values |= {
        "role": role,
        "loss_prediction": role == "target" and strategy.loss_prediction,
        "fov_mpp": site_fov_mpp(task),
    }
    if role != "target":  # others have other classes than mAP is taken over
        values["val_samples"] = None
    if values["loss_prediction"] and {**train_values(task), **values}["batch_size"] == 1:
        raise ConfigError(
            f"{strategy.name} learns from pairs of fields which of two has the higher loss, but batch_size is 1; "
            "make it 2 or more, best an even number"
        )
    return values


def _start(task: TaskSite, plan: RoundPlan, role: str) -> Path | None:
    if not plan.warm_start:
        return None
    if role == "target":
        return task.current_model
    return task.auxiliary_path if task.auxiliary_path.is_file() else None


def _seed(seed: int, round_: int, role: str) -> int:
    return int(np.random.default_rng([seed, round_, *f"train {role}".encode()]).integers(2**31))


def _read_note(folder: Path) -> dict[str, Any]:
    file = folder / NOTE_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _raise_plainly(error: Exception, place: Path) -> None:
    """Raise what was wrong itself, not what MONAI, Ignite and torch have wrapped around it."""
    own = own_error(error)
    if own is not None:
        raise own from error
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno in _NO_ROOM:
            raise OutputError(f"cannot write into {place}: {inner.strerror}; make room, then train again") from error
        if isinstance(inner, FileNotFoundError) and inner.filename:
            raise SlideReadError(
                f"{Path(inner.filename).name} is no longer there; put it back, or train again"
            ) from error
        inner = inner.__cause__ or inner.__context__
    raise error
