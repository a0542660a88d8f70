# SPDX-License-Identifier: Apache-2.0
"""One round of training at a site: labels in, train, measure, publish if it is not worse, ask the next regions.

Kill-safety. All that a training makes lies in the round's folder; a network counts once its hash stands in
``trained.json`` there. The ledger's row in ``models``, which makes the round the current one, is written last. So a
kill

- before a network is noted leaves the old state; the half-made folder is removed by the next training;
- after that, and before the ledger's row, leaves the old round open; the next training goes on with the round's
  networks as they are, and publishes them;
- after the ledger's row leaves the new state without a query, which is made by whoever needs it first.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tral_monai.errors import CheckpointError, ConfigError, TralError
from tral_monai.provenance import provenance
from tral_monai.rounds.regions.choose import make_strategy
from tral_monai.rounds.regions.evaluation import KEY_METRIC, Evaluation, evaluate
from tral_monai.rounds.regions.identity import site_identity
from tral_monai.rounds.regions.publish import hold_training_lock, publish, publish_auxiliary, roll_back, shall_publish
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.round_models import AUXILIARY_FILE, train_network, trained
from tral_monai.rounds.regions.round_plan import (
    VAL_FILE,
    Log,
    RoundPlan,
    answers_hash,
    make_plan,
    read_plan,
    read_table,
)
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.train_config import training_options
from tral_monai.rounds.regions.train_stats import finite, train_stats
from tral_monai.rounds.training import MODEL_FILE
from tral_monai.strategies.registry import strategy_names

__all__ = ["roll_back", "train_round", "train_stats"]

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def train_round(task: TaskSite, *, options: Mapping[str, Any] = _NO_OPTIONS, log: Log = print) -> dict[str, Any]:
    """Run one round, or finish the one that was killed.

    Args:
        task: the task's site.
        options: ``strategy`` of the next query, ``warm_start``, ``force`` (train though nothing is new), ``query``
            (False asks nothing afterwards), and settings of ``train.yaml`` such as ``max_epochs``.
        log: gets one line at a time.

    Returns:
        JSON values: round, whether it was published and why, labels, scores, seconds, and how many regions are open.

    Raises:
        BusyError: a training of this task is going on.
        ConfigError: there is nothing to train on, nothing is new, or an option is wrong; the message says what to do.
        StrategyError: there is no such strategy.
        LedgerError: the ledger is that of other classes.
    """
    asked = _Asked.of(task, options)
    lock = hold_training_lock(task)
    try:
        _sync(task, log)
        with task.ledger() as ledger:
            ledger.begin(site_identity(task), provenance())
            result = _Round(task, ledger, asked, log).run()
    finally:
        lock.release()
    return {**result, "query": _open_round(task, asked, log) if asked.query else None}


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The options of a request, checked."""

    strategy: str
    warm_start: bool
    force: bool
    query: bool
    values: dict[str, Any]

    @classmethod
    def of(cls, task: TaskSite, options: Mapping[str, Any]) -> _Asked:
        rest = dict(options)
        strategy = str(rest.pop("strategy", None) or task.strategy)
        if strategy not in strategy_names(task.name):
            strategy = strategy.removeprefix(f"{task.name}_")
        make_strategy(task, strategy)
        switches = {
            name: _switch(name, rest.pop(name, default))
            for name, default in (("warm_start", task.warm_start), ("force", False), ("query", True))
        }
        return cls(strategy, **switches, values=training_options(task, rest))


class _Round:
    """The steps of one round, under the lock."""

    def __init__(self, task: TaskSite, ledger: RegionLedger, asked: _Asked, log: Log) -> None:
        self.task, self.ledger, self.asked, self.log = task, ledger, asked, log
        self.round = ledger.round + 1
        self.folder = task.round_dir(self.round)

    def run(self) -> dict[str, Any]:
        plan = self._plan()
        if plan is None:
            return {"task": self.task.name, "trained": False, **train_stats(self.task)}
        strategy = make_strategy(self.task, plan.strategy)
        record = train_network(self.task, plan, strategy, "target", log=self.log)
        extra = None
        if strategy.auxiliary is not None:
            extra = train_network(self.task, plan, strategy, strategy.auxiliary, log=self.log)
        published, note = self._decide(plan)
        auxiliary = self.folder / AUXILIARY_FILE if extra is not None else None
        if published:
            publish(self.task, self.folder / MODEL_FILE, auxiliary)
        elif auxiliary is not None:
            publish_auxiliary(self.task, auxiliary)
        known = self.ledger.info()
        self.ledger.record_info(
            {
                "published_round": self.round if published else int(known.get("published_round", 0)),
                "trained_on": plan.trained_on,
                "labels": plan.labels,
                "measured_by": plan.measured_by,
                "training_note": note,
            }
        )
        if extra is not None and strategy.auxiliary is not None:
            self.ledger.record_auxiliary_model(self.round, strategy.auxiliary, extra)
        self.ledger.record_model(self.round, record)
        self.log(f"round {self.round} is {'published' if published else 'not published'}: {note}")
        return {
            "task": self.task.name,
            "trained": True,
            "round": self.round,
            "published": published,
            "note": note,
            "regions": {"train": plan.regions, "val": plan.val_regions},
            "labels": plan.labels,
            "measured_by": plan.measured_by,
            "epochs": record.epochs,
            "seconds": record.seconds,
            "val": finite(self.ledger.metrics(self.round, "val")),
            "val_previous": finite(self.ledger.metrics(self.round, "val_previous")),
        }

    def _plan(self) -> RoundPlan | None:
        """The plan of this round; None where nothing is new but the query of the last one is still to be made."""
        plan = read_plan(self.folder)
        if plan is not None and trained(self.folder, MODEL_FILE) is not None:
            self.log(f"round {self.round} was trained before its process ended; going on from there")
            return plan
        answers = self.ledger.answers()
        if not answers:
            raise ConfigError(
                f"nothing is annotated for '{self.task.name}' yet: ask for the next sample, annotate the region that "
                "it shows, and submit the label; then train"
            )
        answered = answers_hash(answers)
        if self.ledger.info().get("trained_on") == answered and not self.asked.force:
            if self.asked.query and not self.ledger.query(self.ledger.round):
                self.log(f"round {self.ledger.round} is trained; only its query is missing")
                return None
            raise ConfigError(
                f"nothing was annotated since the training of round {self.ledger.round}: submit labels of further "
                "regions first, or train all the same with force"
            )
        shutil.rmtree(self.folder, ignore_errors=True)  # what a killed training left
        self.folder.mkdir(parents=True)
        self.ledger.record_info({f"published_round_{self.round}": None})
        return make_plan(
            self.task,
            self.folder,
            round_=self.round,
            strategy=self.asked.strategy,
            values=self.asked.values,
            warm_start=self.asked.warm_start,
            trained_on=answered,
            log=self.log,
        )

    def _decide(self, plan: RoundPlan) -> tuple[bool, str]:
        """Measure the new and the published model on the same samples; once decided, it stays decided."""
        info = self.ledger.info()
        decided = info.get(f"published_round_{self.round}")
        if decided is not None:
            return bool(decided), str(info.get("training_note", ""))
        metric = KEY_METRIC[self.task.name]
        new, old = self._measure(self.folder / MODEL_FILE, "val"), None
        current = self.task.current_model
        if new is not None and current is not None:
            try:
                old = self._measure(current, "val_previous")
            except CheckpointError as error:
                self.log(f"the current model cannot be measured: {error}")
        scores = [None if one is None else one.key(self.task.name) for one in (new, old)]
        published, note = shall_publish(*scores, tolerance=self.task.settings.publish_tolerance, metric=metric)
        note = f"{note} (measured by {plan.measured_by})" if new is not None else note
        self.ledger.record_info({f"published_round_{self.round}": published, "training_note": note})
        return published, note

    def _measure(self, model: Path, split: str) -> Evaluation | None:
        samples = read_table(self.task.name, self.folder / VAL_FILE)
        if samples.empty:
            return None
        from tral_monai.networks.checkpoint import read_contract

        classes = read_contract(model)["classes"]
        if list(classes) != list(self.task.classes):
            raise CheckpointError(f"{model.name} knows the classes {classes}, this site {list(self.task.classes)}")
        found = evaluate(self.task, model, samples)
        self.ledger.record_evaluation(
            self.round, split, found.metrics, found.confusion, self.task.classes * bool(found.confusion)
        )
        if split == "val" and found.confusion:
            absent = [name for name, row in zip(self.task.classes, found.confusion, strict=True) if not sum(row)]
            if absent:
                self.log(f"no held-out tile is {' or '.join(absent)}: the score says nothing of it")
        which = "new" if split == "val" else "published"
        self.log(f"{which} model: {KEY_METRIC[self.task.name]} {found.key(self.task.name):.3f}")
        return found


def _open_round(task: TaskSite, asked: _Asked, log: Log) -> dict[str, Any]:
    """Make the query that follows. The training is done and recorded: what goes wrong here does not undo it."""
    from tral_monai.rounds.regions.query import prepare_query

    try:
        round_ = prepare_query(task, asked.strategy)
        with task.ledger() as ledger:
            regions = [one for one in ledger.asked(round_) if not one.answered]
    except TralError as error:
        log(f"the round is trained, but its query could not be made: {error}")
        return {"round": None, "open": 0, "problem": str(error)}
    log(f"round {round_} is open: {len(regions)} regions to annotate")
    return {"round": round_, "open": len(regions), "problem": ""}


def _sync(task: TaskSite, log: Log) -> None:
    """Bring the ledger in line with the label files."""
    from tral_monai.rounds.regions.intake import sync_labels

    report = sync_labels(task.site)[task.name]
    if report.changed or report.problems:
        log(f"labels of {report.message}")


def _switch(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, but is {value!r}")
    return value
