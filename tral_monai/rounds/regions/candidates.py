# SPDX-License-Identifier: Apache-2.0
"""All regions of a site that may be asked for, and which of them are held out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.errors import AnnotationError, PoolError
from tral_monai.progress import Progress
from tral_monai.rounds.regions.candidate_cache import CandidateCache, region_ids
from tral_monai.rounds.regions.catalog import Axis, Side, SlideEntry
from tral_monai.rounds.regions.open_regions import open_regions
from tral_monai.rounds.regions.region import Purpose, Region
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.slide_grid import area_purposes

logger = logging.getLogger(__name__)

CANDIDATE_COLUMNS = {
    "id": "int64",
    "slide": "str",
    "x_level0": "int64",
    "y_level0": "int64",
    "width_level0": "int64",
    "height_level0": "int64",
    "purpose": "str",
    "tissue": "float64",
    "cells": "int64",
    "mpp": "float64",
}
"""Columns of the table of candidates; for ``cells`` see :data:`slide_grid.COLUMNS`."""

_GUARD_COSTS_AT_MOST = 0.5


def candidate_regions(
    task: TaskSite, *, slides: Collection[str] | None = None, progress: Progress | None = None
) -> pd.DataFrame:
    """Every region that the task may ask for, whether or not it was asked for before.

    A slide gives a grid of squares of ``region_um`` on its tissue; a field below 1 mm is divided evenly. The slide's
    side says what they are for, or the lab's areas where there are any. A site's only slide is divided along its longer
    side, with a region's width left free on either side of the cut, since tiles at 2.5x see that far.

    Args:
        task: the task's site.
        slides: file names; None takes all slides.
        progress: told how many slides are done.

    Returns:
        One row per region with :data:`CANDIDATE_COLUMNS`, by slide, row and column.

    Raises:
        PoolError: there is none; the message says why.
        ConfigError: the studies folder or the slides table cannot be used.
        OutputError: the tables cannot be kept.
    """
    cache = _cache(task)
    entries = {name: entry for name, entry in task.catalog.entries().items() if slides is None or name in set(slides)}
    sides = task.catalog.sides()
    tables = []
    for done, (name, entry) in enumerate(entries.items()):
        if progress is not None:
            progress(done, len(entries))
        found = cache.get(entry)
        if found is not None and len(found):
            tables.append(_with_purpose(task, entry, found, sides.get(name, "train")))
    if progress is not None:
        progress(len(entries), len(entries))
    if not sum(map(len, tables)):
        raise PoolError(_why_none(task, entries))
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def some_candidates(
    task: TaskSite,
    purpose: Purpose,
    generator: np.random.Generator,
    *,
    taken: Sequence[tuple[Region, Purpose]],
    slides: int,
    regions: int,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """The open regions for one purpose on some slides, drawn at random: as many as a query needs.

    To find the tissue of a slide takes seconds, and a first round asks for regions of a few slides only. All others
    are not looked at before a later round needs them. The draw depends on the seed and the slides alone, not on which
    slides were looked at before.

    Args:
        task: the task's site.
        purpose: what the regions are for.
        generator: source of the draw.
        taken: every region that was asked for or answered, with its purpose.
        slides: how many slides with open regions are enough, ...
        regions: ... if they have so many together.
        progress: told how many of the slides that are wanted are there.

    Returns:
        As :func:`candidate_regions`, by slide; without rows where no slide has any.
    """
    cache, entries, sides = _cache(task), task.catalog.entries(), task.catalog.sides()
    tables: dict[str, pd.DataFrame] = {}
    for name in slide_order(task, [name for name, entry in entries.items() if _may(entry, sides, purpose)], generator):
        if len(tables) >= slides and sum(map(len, tables.values())) >= regions:
            break
        if progress is not None:
            progress(min(len(tables), slides), slides)
        found = cache.get(entries[name])
        if found is not None and len(found):
            table = _with_purpose(task, entries[name], found, sides.get(name, "train"))
            table = open_regions(table[table["purpose"] == purpose], taken)
            if len(table):
                tables[name] = table
    logger.info("%s: %d of %d slides are enough to draw from (%s)", task.name, len(tables), len(entries), purpose)
    if not tables:
        return pd.DataFrame(columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)
    return pd.concat([tables[name] for name in sorted(tables)], ignore_index=True)


def slide_order(task: TaskSite, names: Sequence[str], generator: np.random.Generator) -> list[str]:
    """Slides in random order, the first of each patient before the second of any; without those that are gone.

    Args:
        task: the task's site.
        names: file names.
        generator: source of the draw.
    """
    entries = task.catalog.entries()
    shuffled = [names[i] for i in generator.permutation(len(names)) if names[i] in entries]
    turn: dict[str, int] = {}
    keys = {}
    for name in shuffled:
        patient = entries[name].patient
        keys[name] = turn[patient] = turn.get(patient, -1) + 1
    return sorted(shuffled, key=keys.__getitem__)


def slide_problems(task: TaskSite) -> dict[str, str]:
    """Slides that were found to be of no use, with the reason; slides that nobody has looked at yet are not among them.

    Args:
        task: the task's site.
    """
    cache = _cache(task)
    problems = {name: cache.problem(entry) for name, entry in task.catalog.entries().items()}
    return {name: problem for name, problem in problems.items() if problem is not None}


def _cache(task: TaskSite) -> CandidateCache:
    return CandidateCache(
        task.folder / "candidates",
        task.folder / "tissue",
        region_um=task.settings.region_um,
        seed=task.site.settings.seed,
    )


def _may(entry: SlideEntry, sides: dict[str, Side], purpose: Purpose) -> bool:
    """Whether a slide can have regions for a purpose, as far as is known without looking at it."""
    if entry.areas is None:
        return sides.get(entry.name, "train") in (purpose, "split")
    try:
        return purpose in area_purposes(entry.areas)
    except AnnotationError:
        return True  # looking at the slide records what is wrong


def _with_purpose(task: TaskSite, entry: SlideEntry, found: pd.DataFrame, side: Side) -> pd.DataFrame:
    """A slide's regions with names and purposes; those that serve none are left out."""
    if (found["area"] != "").any():
        purposes = found["area"].to_numpy(object)
    elif side != "split":
        purposes = np.full(len(found), side, dtype=object)
    else:
        cut = task.catalog.cut_of(entry.name)
        if cut is None:
            cut = find_cut(found, task.site.settings.val_fraction)
            if cut is not None:
                task.catalog.cut(entry.name, *cut)
                cut = task.catalog.cut_of(entry.name)  # of two that cut at once, the first counts
        purposes = np.full(len(found), "train", dtype=object)
        if cut is not None:
            purposes = divided(found, *cut)
            if not {"train", "val"} <= set(purposes):  # regions of another task's size made the cut
                found = cut_regions(found, *cut)
                found["id"] = region_ids(entry.name, found)
                purposes = divided(found, *cut)
    table = found.assign(slide=entry.name, purpose=purposes)[purposes != ""]
    return table[list(CANDIDATE_COLUMNS)].astype(CANDIDATE_COLUMNS)


def find_cut(found: pd.DataFrame, val_fraction: float) -> tuple[Axis, int] | None:
    """Where to divide a slide so that about a part of its regions lies beyond; None where all lie in one place.

    Args:
        found: the slide's regions.
        val_fraction: the part.

    Returns:
        The axis, that along which the regions reach further, and the place in level-0 pixels: a region begins there.
    """
    if val_fraction <= 0:
        return None
    reach = {
        axis: int((found[f"{axis}_level0"] + found[size]).max() - found[f"{axis}_level0"].min())
        for axis, size in (("x", "width_level0"), ("y", "height_level0"))
    }
    axes: tuple[Axis, ...] = ("x", "y") if reach["x"] >= reach["y"] else ("y", "x")
    for axis in axes:
        starts = found[f"{axis}_level0"].to_numpy(np.int64)
        places = np.unique(starts)[1:]
        if len(places):
            beyond = np.array([(starts >= place).mean() for place in places])
            return axis, int(places[np.abs(beyond - val_fraction).argmin()])
    return None


def divided(found: pd.DataFrame, axis: Axis, at_level0: int) -> npt.NDArray[np.object_]:
    """The purpose of each region of a slide that is cut in two; empty for those across the cut or too close to it.

    A region's width stays free on either side, where that leaves half of the regions or more on each; a small field
    cannot afford it.

    Args:
        found: the slide's regions.
        axis: across which the slide is cut.
        at_level0: where, in level-0 pixels.
    """
    start = found[f"{axis}_level0"].to_numpy(np.int64)
    width = found["width_level0" if axis == "x" else "height_level0"].to_numpy(np.int64)
    sides = np.where(start >= at_level0, "val", np.where(start + width <= at_level0, "train", "")).astype(object)
    far = np.where(sides == "val", start - at_level0 >= width, at_level0 - (start + width) >= width)
    counts = {name: int((sides == name).sum()) for name in ("train", "val")}
    left = {name: int(((sides == name) & far).sum()) for name in counts}
    if all(left[n] >= _GUARD_COSTS_AT_MOST * counts[n] and left[n] for n in counts):
        return np.where(far, sides, "")
    return sides


def cut_regions(found: pd.DataFrame, axis: Axis, at_level0: int) -> pd.DataFrame:
    """The same regions, those across the cut divided in two; parts below a quarter of a region are left out."""
    at, size = f"{axis}_level0", "width_level0" if axis == "x" else "height_level0"
    across = (found[at] < at_level0) & (found[at] + found[size] > at_level0)
    before, beyond = found[across].copy(), found[across].copy()
    before[size] = at_level0 - before[at]
    beyond[size], beyond[at] = beyond[at] + beyond[size] - at_level0, at_level0
    parts = [part[part[size] >= found.loc[part.index, size] / 4] for part in (before, beyond)]
    return pd.concat([found[~across], *parts]).sort_values(["y_level0", "x_level0"], ignore_index=True)


def _why_none(task: TaskSite, entries: dict[str, SlideEntry]) -> str:
    studies = task.site.studies.name
    if not entries:
        return f"there is no slide in the studies folder '{studies}'; put slides there and ask again"
    problems = {name: problem for name, problem in slide_problems(task).items() if name in entries}
    if problems:
        first = "; ".join(f"{name}: {problem}" for name, problem in list(problems.items())[:3])
        rest = "" if len(problems) == len(entries) else ", and the others have no tissue"
        return f"there is no region to ask for: {len(problems)} of {len(entries)} slides cannot be used ({first}){rest}"
    return (
        f"there is no region to ask for: no tissue was found on {len(entries)} slides in '{studies}', or their areas "
        "leave none; check the slides, their mpp and the column areas of slides.csv"
    )
