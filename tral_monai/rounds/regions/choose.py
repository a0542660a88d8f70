# SPDX-License-Identifier: Apache-2.0
"""The choice of a round's regions: by a strategy where it can work, else regions that cover the tissue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tral_monai.errors import EmptyPoolError, StrategyError
from tral_monai.progress import Progress
from tral_monai.rounds.regions.candidates import candidate_regions, some_candidates
from tral_monai.rounds.regions.cold_start import COVERAGE, coverage
from tral_monai.rounds.regions.open_regions import BOX, fair_part, open_regions, regions_of
from tral_monai.rounds.regions.publish import published_split
from tral_monai.rounds.regions.region import Purpose, Region, RegionQuery
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.tissue_outputs import FROM_VALIDATION, RegionOutputs, tissue_outputs
from tral_monai.strategies.base import Selection, Strategy
from tral_monai.strategies.class_request import interleave
from tral_monai.strategies.registry import strategy_from_config

logger = logging.getLogger(__name__)

POOL_COLUMNS = ["id", "slide", *BOX, "purpose", "score", "class_predicted"]
"""Columns of a round's table of scored regions."""
_DRAW_POOL, _DRAW_TRAIN, _DRAW_VAL, _DRAW_SLIDES = 1, 2, 3, 4


class Choice(NamedTuple):
    """A round's query, the regions that were scored for it, and what chose it: a strategy's name or ``coverage``."""

    rows: list[RegionQuery]
    pool: pd.DataFrame
    used: str


def make_strategy(task: TaskSite, name: str) -> Strategy:
    """A strategy by name; the site's options belong to the site's own strategy.

    Raises:
        StrategyError: there is no such strategy for the task.
        ConfigError: it refuses an option.
    """
    options = task.settings.strategy_options if name == task.strategy else {}
    return strategy_from_config(name, options, task.name)


def taken_regions(ledger: RegionLedger, *, but_round: int | None = None) -> list[tuple[Region, Purpose]]:
    """Every region that was asked for or answered, with its purpose.

    Args:
        ledger: the task's ledger.
        but_round: what was asked for in this round does not count.
    """
    taken = {asked.region: asked.purpose for asked in ledger.asked() if asked.round != but_round}
    return list({**taken, **{answer.region: answer.purpose for answer in ledger.answers()}}.items())


def stands_in(task: TaskSite, strategy: Strategy, ledger: RegionLedger) -> str | None:
    """Why regions that cover the tissue must stand in for a strategy; None where it can work, or must say why not.

    Args:
        task: the task's site.
        strategy: the strategy.
        ledger: the task's ledger.
    """
    wanted, round_ = strategy.needs | strategy.wants, ledger.round
    if strategy.needs and task.current_model is None:
        return "first round" if round_ == 0 else "there is no model"
    if wanted & FROM_VALIDATION:
        matrix = ledger.confusion(round_, published_split(ledger), task.classes)
        if matrix is None or not np.any(matrix):
            when = "first round" if round_ == 0 else "no held-out region is measured yet"
            return f"{when}, and {strategy.name} goes by errors on held-out regions"
    if round_ == 0 and task.name == "nuclei":
        from tral_monai.rounds.regions.nucleus_outputs import missing_detector

        why = missing_detector(task, strategy)
        return None if why is None else f"first round, and {why}"
    return None


def choose_regions(
    task: TaskSite, name: str, ledger: RegionLedger, *, anew: bool = False, progress: Progress | None = None
) -> Choice:
    """Choose the regions of the current round.

    A first round looks at as many slides as it asks for regions, drawn at random; so does every other query that covers
    the tissue. Training regions are chosen by the strategy. Where it cannot work yet they cover the tissue, which the
    reasons say. Held-out regions come with round 0, and later rounds ask for as many as are still unanswered: with few
    of them models are measured badly. The ranks mix both evenly.

    Args:
        task: the task's site.
        name: the strategy.
        ledger: the task's ledger.
        anew: the round has a query, which this one is to replace.
        progress: told how many slides are looked at.

    Raises:
        PoolError: no region is left, or there is none at all.
        StrategyError: the strategy lacks a detector, or asks to stop.
    """
    round_, settings = ledger.round, task.settings
    strategy = make_strategy(task, name)
    taken = taken_regions(ledger, but_round=round_ if anew else None)
    why = stands_in(task, strategy, ledger)
    answered_val = sum(answer.purpose == "val" for answer in ledger.answers())
    n_val = settings.val_budget if round_ == 0 else max(0, settings.val_budget - answered_val)
    train = _to_train_on(task, why, round_, taken, progress)
    val = _some(task, "val", round_, taken, n_val, n_val, progress) if n_val else train.iloc[:0]
    n_val = min(n_val, len(val))
    if train.empty and not n_val:
        candidate_regions(task)  # tells why, where there is none at all
        raise EmptyPoolError(
            f"all regions of the slides in '{task.site.studies.name}' were asked for or annotated; add slides, or make "
            f"{task.name}_region_um smaller"
        )
    rows: list[RegionQuery] = []
    pools: list[pd.DataFrame] = []
    used = name
    if len(train):
        if why is None:
            rows, pool = _by_strategy(task, strategy, train, ledger, progress)
        else:
            used = COVERAGE
            generator = _generator(task, round_, _DRAW_TRAIN)
            found = coverage(
                task, train, settings.budget, generator, purpose="train", known=[r for r, _ in taken], why=why,
                progress=progress,
            )  # fmt: skip
            rows, pool = found
        pools.append(pool)
    if n_val:
        generator = _generator(task, round_, _DRAW_VAL)
        held_out, pool = coverage(
            task, val, n_val, generator, purpose="val", known=[r for r, _ in taken], progress=progress
        )
        mixed = interleave([np.arange(len(rows)), len(rows) + np.arange(len(held_out))])
        rows = [[*rows, *held_out][i] for i in mixed]
        pools.append(pool)
    pool = pd.concat(pools, ignore_index=True)
    if "class_predicted" not in pool:
        pool["class_predicted"] = ""
    pool["class_predicted"] = pool["class_predicted"].fillna("")
    return Choice(rows, pool[POOL_COLUMNS], used)


def _to_train_on(
    task: TaskSite, why: str | None, round_: int, taken: list[tuple[Region, Purpose]], progress: Progress | None
) -> pd.DataFrame:
    """The open regions to choose from: of a few slides for a first query, else of all."""
    settings = task.settings
    if why is not None:  # as many slides as regions: they take turns
        return _some(task, "train", round_, taken, settings.budget, settings.budget, progress)
    if round_ == 0 and settings.max_candidates is not None:
        return _some(task, "train", round_, taken, settings.budget, settings.max_candidates, progress)
    found = candidate_regions(task, progress=progress)
    return open_regions(found[found["purpose"] == "train"].reset_index(drop=True), taken)


def _some(
    task: TaskSite, purpose: Purpose, round_: int, taken: list[tuple[Region, Purpose]], slides: int, regions: int,
    progress: Progress | None,
) -> pd.DataFrame:  # fmt: skip
    seed = [task.site.settings.seed, round_, _DRAW_SLIDES, ("train", "val").index(purpose)]
    return some_candidates(
        task, purpose, np.random.default_rng(seed), taken=taken, slides=slides, regions=regions, progress=progress
    )


def _by_strategy(
    task: TaskSite, strategy: Strategy, train: pd.DataFrame, ledger: RegionLedger, progress: Progress | None
) -> tuple[list[RegionQuery], pd.DataFrame]:
    part = fair_part(train, task.settings.max_candidates, _generator(task, ledger.round, _DRAW_POOL))
    found = _outputs(task, strategy, part, ledger, progress)
    selection = strategy.select(found.outputs, task.settings.budget, _generator(task, ledger.round, _DRAW_TRAIN))
    if selection.stop or not len(selection):
        raise StrategyError(
            f"{strategy.name} asks for nothing more ({selection.stop or 'it chose no region'}); ask for another "
            "strategy, or end here"
        )
    scores = pd.DataFrame(
        {
            "id": found.outputs.ids,
            "score": strategy.score(found.outputs),
            "class_predicted": found.class_predicted,
        }
    )
    pool = part.merge(scores, on="id", how="inner")
    return _rows(pool, selection, task.classes), pool


def _outputs(
    task: TaskSite, strategy: Strategy, part: pd.DataFrame, ledger: RegionLedger, progress: Progress | None
) -> RegionOutputs:
    if task.name == "tissue":
        return tissue_outputs(task, strategy, part, ledger, progress=progress)
    from tral_monai.rounds.regions.nucleus_outputs import nucleus_outputs

    return nucleus_outputs(task, strategy, part, progress=progress)


def _rows(pool: pd.DataFrame, selection: Selection, classes: Sequence[str]) -> list[RegionQuery]:
    regions = {region.id: region for region in regions_of(pool)}
    return [
        RegionQuery(regions[number], "train", classes[asked] if asked >= 0 else None, score, reason)
        for number, asked, score, reason in zip(
            selection.ids.tolist(),
            selection.class_asked.tolist(),
            selection.scores.tolist(),
            selection.reasons,
            strict=True,
        )
    ]


def _generator(task: TaskSite, round_: int, draw: int) -> np.random.Generator:
    return np.random.default_rng([task.site.settings.seed, round_, draw])
