# SPDX-License-Identifier: Apache-2.0
"""How far a round is: what chose its regions, who has them, and what opens the next round."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Collection

from tral_monai.rounds.regions.candidates import slide_problems
from tral_monai.rounds.regions.region import AskedRegion
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.site import TaskSite

POOL_FILE = "pool.parquet"
"""In the round's folder: all regions that were scored for its query, see ``choose.POOL_COLUMNS``."""


def round_strategy(ledger: RegionLedger, round_: int) -> tuple[str, str]:
    """The strategy that was asked for in a round, and what chose: the same, or ``coverage``; empty before the query."""
    info = ledger.info()
    return info.get(f"strategy_round_{round_}", ""), info.get(f"strategy_used_round_{round_}", "")


def open_rows(ledger: RegionLedger, round_: int) -> list[AskedRegion]:
    """The regions of a round's query that nobody has answered or holds, by rank.

    Args:
        ledger: the task's ledger.
        round_: the round.
    """
    now = time.time()
    return [asked for asked in ledger.asked(round_) if not asked.answered and asked.reserved_until <= now]


def spent(task: TaskSite, ledger: RegionLedger, round_: int, gone: Collection[str]) -> str:
    """One sentence about a round of which nothing is open.

    Args:
        task: the task's site.
        ledger: its ledger.
        round_: the round.
        gone: slides that are no longer in the folder.
    """
    rows = ledger.asked(round_)
    answered = sum(asked.answered for asked in rows)
    now = time.time()
    held = [asked for asked in rows if not asked.answered and asked.reserved_until > now]
    lost = [asked for asked in rows if not asked.answered and asked.region.slide in gone and asked not in held]
    parts = [f"{answered} answered"]
    if held:
        last = datetime.datetime.fromtimestamp(max(asked.reserved_until for asked in held)).astimezone()
        parts.append(f"{len(held)} reserved until {last:%H:%M}")
    if lost:
        parts.append(f"{len(lost)} on slides that are gone ({', '.join(sorted({a.region.slide for a in lost}))})")
    what = "submit those, or train" if held else "train"
    return (
        f"round {round_} has given out its {len(rows)} regions: {', '.join(parts)}; {what} (POST /train/{task.name}) "
        f"to open round {round_ + 1}"
    )


def nothing_on(task: TaskSite, ledger: RegionLedger, round_: int, slide: str, gone: Collection[str]) -> str:
    """One sentence about a slide of which nothing is open, with where there is something.

    Args:
        task: the task's site.
        ledger: its ledger.
        round_: the round.
        slide: file name of the slide.
        gone: slides that are no longer in the folder.
    """
    problem = slide_problems(task).get(slide)
    if problem is not None:
        return f"{slide} cannot be used: {problem}"
    elsewhere = Counter(row.region.slide for row in open_rows(ledger, round_))
    for name in (*gone, slide):
        elsewhere.pop(name, None)
    if not elsewhere:
        return f"nothing is open on {slide}; {spent(task, ledger, round_, gone)}"
    places = ", ".join(f"{count} on {name}" for name, count in elsewhere.most_common(5))
    held_out = task.catalog.sides().get(slide) == "val"
    why = "it is held out, and the round asks for regions to train on" if held_out else "it has no other open region"
    return (
        f"nothing is open on {slide} in round {round_} ({why}); open regions: {places}. Ask for those "
        "without naming a slide"
    )
