# SPDX-License-Identifier: Apache-2.0
"""What one training at a site learns from and is measured by, written down before it begins."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import shapely

from tral_monai.atomic_file import atomic_path
from tral_monai.data.nuclei.fov_table import read_fovs, write_fovs
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.held_out import divide_region, held_out_regions
from tral_monai.rounds.regions.region import RegionAnswer
from tral_monai.rounds.regions.samples import nucleus_samples, tissue_samples
from tral_monai.rounds.regions.settings import Task
from tral_monai.rounds.regions.site import TaskSite

Log = Callable[[str], None]

PLAN_FILE, TRAIN_FILE, VAL_FILE = "plan.json", "train.parquet", "val.parquet"


@dataclasses.dataclass(frozen=True)
class RoundPlan:
    """What a round trains.

    Attributes:
        round: the round, from 1.
        strategy: strategy of the query that follows.
        values: settings for ids of ``train.yaml`` that came with the request.
        warm_start: whether training begins with the current model.
        trained_on: hash of all answers at that moment.
        regions: number of regions trained on.
        val_regions: number of regions measured by.
        labels: tiles or nuclei to train on by class.
        measured_by: one sentence: what the validation scores come from.
    """

    round: int
    strategy: str
    values: dict[str, Any]
    warm_start: bool
    trained_on: str
    regions: int
    val_regions: int
    labels: dict[str, int]
    measured_by: str


def read_plan(folder: Path) -> RoundPlan | None:
    """The plan in a round's folder, or None."""
    file = folder / PLAN_FILE
    return RoundPlan(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def read_table(task: Task, file: Path) -> pd.DataFrame:
    """A table that :func:`make_plan` wrote; empty where there is none."""
    if not file.is_file():
        return pd.DataFrame()
    return pd.read_parquet(file) if task == "tissue" else read_fovs(file)


def answers_hash(answers: Iterable[RegionAnswer]) -> str:
    """Hash of what people answered: another one means that there is something new to learn."""
    digest = hashlib.sha256()
    for answer in sorted(answers, key=lambda one: one.region.id):
        digest.update(f"{answer.region.id} {answer.purpose}".encode())
        for name, geometry in answer.shapes:
            digest.update(name.encode() + b"\0" + shapely.to_wkb(geometry))
    return digest.hexdigest()


def make_plan(
    task: TaskSite,
    folder: Path,
    *,
    round_: int,
    strategy: str,
    values: Mapping[str, Any],
    warm_start: bool,
    trained_on: str,
    log: Log,
) -> RoundPlan:
    """Gather samples, divide them, and write tables and plan into a round's folder.

    Raises:
        ConfigError: there is nothing to train on, or too little to train on one part and measure by another.
    """
    table = tissue_samples(task) if task.name == "tissue" else nucleus_samples(task)
    region, side = ("region", "split") if task.name == "tissue" else ("id", "part")
    train, val = table[table[side] == "train"], table[table[side] == "val"]
    _check(task, train, val)
    measured_by = "regions on held-out slides"
    if not _counts(val):
        train, val, measured_by = _divide(task, train, region)
    labels = _counts(train)
    plan = RoundPlan(
        round_,
        strategy,
        dict(values),
        warm_start,
        trained_on,
        int(train[region].nunique()),
        int(val[region].nunique()) if len(val) else 0,
        {name: labels[name] for name in _order(task, labels)},
        measured_by,
    )
    _tell(task, plan, _counts(val), log)
    for name, part in ((TRAIN_FILE, train), (VAL_FILE, val)):
        if name == TRAIN_FILE or len(part):
            _write(task.name, part.reset_index(drop=True), folder / name)
    with atomic_path(folder / PLAN_FILE) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(plan), indent=1), encoding="utf-8")
    return plan


def _check(task: TaskSite, train: pd.DataFrame, val: pd.DataFrame) -> None:
    what = "tile" if task.name == "tissue" else "nucleus"
    known = [name for name in _counts(train) if name in task.classes]
    if known:
        return
    if len(val) and not len(train):
        raise ConfigError(
            f"{len(val)} {what} samples are held out to measure models by, but none is there to train on; "
            "annotate regions of other slides (ask for the next sample) and train again"
        )
    raise ConfigError(
        f"the annotated regions give no {what} of the classes {list(task.classes)} to train on; annotate regions that "
        "hold some, check the class names (those set aside are listed), and that the slides are still there"
    )


def _divide(task: TaskSite, train: pd.DataFrame, region: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    chosen = held_out_regions(train[region].unique().tolist(), seed=task.site.settings.seed)
    while chosen:
        kept, val = train[~train[region].isin(chosen)], train[train[region].isin(chosen)]
        if any(name in task.classes for name in _counts(kept)):
            break
        chosen = set()  # everything drawn lies in what would be held out
    if chosen:
        return kept, val, f"{len(chosen)} of the training regions, held out because no held-out region is annotated yet"
    if task.name == "nuclei":
        return train, train.iloc[:0], "nothing: there is too little to hold out"
    kept, val = divide_region(train)
    if not len(kept) or not len(val):
        raise ConfigError(
            f"{len(train)} labelled tiles cannot be divided into some to train on and some to measure by; annotate one "
            "more region (ask for the next sample) and train again"
        )
    return kept, val, "one end of the only annotated region; annotate another region for a score that means something"


def _counts(table: pd.DataFrame) -> Counter[str]:
    if "classes" in table:
        return Counter(name for names in table["classes"] for name in names)
    return Counter(table["class"].tolist()) if "class" in table else Counter()


def _order(task: TaskSite, labels: Mapping[str, int]) -> list[str]:
    return [name for name in task.classes if name in labels] + sorted(set(labels) - set(task.classes))


def _tell(task: TaskSite, plan: RoundPlan, held_out: Counter[str], log: Log) -> None:
    what = "tiles" if task.name == "tissue" else "nuclei"
    counts = ", ".join(f"{name} {count}" for name, count in plan.labels.items())
    log(
        f"round {plan.round}: {plan.regions + plan.val_regions} regions answered, {plan.regions} to train on "
        f"({sum(plan.labels.values())} {what}: {counts}), {plan.val_regions} held out"
    )
    log(f"measured by: {plan.measured_by}")
    absent = [name for name in task.classes if name not in plan.labels]
    if absent:
        log(f"no label to train on yet of: {', '.join(absent)}")
    unmeasured = [name for name in task.classes if name in plan.labels and not held_out[name]]
    if unmeasured and plan.val_regions:
        log(f"no held-out label yet of: {', '.join(unmeasured)}")


def _write(task: Task, table: pd.DataFrame, file: Path) -> None:
    if task == "nuclei":
        write_fovs(table, file)
        return
    with atomic_path(file) as temporary:
        table.to_parquet(temporary, index=False)
