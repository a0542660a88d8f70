# SPDX-License-Identifier: Apache-2.0
"""Another region in place of an open one, for an annotator who wants to stay on the slide that is open."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import Any

import pandas as pd

from tral_monai.errors import LedgerError, PoolError
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.choose import POOL_COLUMNS, taken_regions
from tral_monai.rounds.regions.open_regions import open_regions, regions_of
from tral_monai.rounds.regions.region import Purpose, RegionQuery
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.round_state import POOL_FILE, open_rows, round_strategy
from tral_monai.rounds.regions.site import TaskSite

logger = logging.getLogger(__name__)

_PURPOSES: tuple[Purpose, ...] = ("train", "val")


def exchange_for(task: TaskSite, ledger: RegionLedger, round_: int, slide: str, gone: Collection[str]) -> bool:
    """Ask for a slide's best region in place of the last open one of the round; budget and purposes stay as they are.

    Args:
        task: the task's site.
        ledger: its ledger.
        round_: the round.
        slide: file name of the slide.
        gone: slides that are no longer in the folder: their regions are given up first.

    Returns:
        False where it cannot be done: no region is open in the round, or the slide has none of the same purpose.
    """
    rows = open_rows(ledger, round_)
    if not rows:
        return False
    best = _best_of(task, ledger, round_, slide)
    for purpose in _PURPOSES:
        of_purpose = [asked for asked in rows if asked.purpose == purpose]
        if not of_purpose or purpose not in best:
            continue
        out = max(of_purpose, key=lambda asked: (asked.region.slide in gone, asked.rank))
        try:
            ledger.exchange(out, best[purpose])
        except LedgerError:  # somebody asked for it in this moment: the next best will do
            logger.info("%s: the best region of %s is asked for already", task.name, slide)
        return True
    return False


def _best_of(task: TaskSite, ledger: RegionLedger, round_: int, slide: str) -> dict[Purpose, RegionQuery]:
    """The best open region of a slide for each purpose, by what the round's strategy said of it."""
    try:
        candidates = candidate_regions(task, slides=[slide])
    except PoolError:  # the slide has none
        return {}
    candidates = open_regions(candidates, taken_regions(ledger))
    pool = _read_pool(task, round_)
    scored = candidates.merge(pool[["id", "score", "class_predicted"]], on="id", how="left")
    scored = scored.sort_values(["score", "tissue", "id"], ascending=False, na_position="last", kind="stable")
    used = round_strategy(ledger, round_)[1]
    best: dict[Purpose, RegionQuery] = {}
    for row, region in zip(scored.to_dict("records"), regions_of(scored), strict=True):
        for purpose in _PURPOSES:
            if row["purpose"] == purpose and purpose not in best:
                best[purpose] = RegionQuery(region, purpose, None, *_score_and_reason(row, slide, used))
    return best


def _score_and_reason(row: dict[Any, Any], slide: str, used: str) -> tuple[float, str]:
    score = float(row["score"])
    if math.isnan(score):  # nobody looked at it when the query was made
        return 0.0, f"asked for on this slide: the open region of {slide} with the most tissue"
    seen = f", seen as {row['class_predicted']}" if row["class_predicted"] else ""
    return score, f"asked for on this slide: the open region of {slide} that {used} scores highest ({score:.3f}{seen})"


def _read_pool(task: TaskSite, round_: int) -> pd.DataFrame:
    file = task.round_dir(round_) / POOL_FILE
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # it only ranks: without it regions are ranked by their tissue
        logger.warning("%s cannot be read (%s); regions of a slide are ranked by their tissue", file, error)
        return pd.DataFrame({name: [] for name in POOL_COLUMNS}).astype({"id": "int64", "score": "float64"})
