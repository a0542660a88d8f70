# SPDX-License-Identifier: Apache-2.0
"""Regions to begin with, where no model can say what is worth labelling: they cover the tissue of all slides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.errors import PoolError, SlideError, UnknownItemError
from tral_monai.progress import Progress
from tral_monai.rounds.regions.candidates import slide_order
from tral_monai.rounds.regions.open_regions import BOX, regions_of, turns
from tral_monai.rounds.regions.region import Purpose, Region, RegionQuery
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.slides import Slide
from tral_monai.strategies.base import PoolOutputs, Selection
from tral_monai.strategies.typiclust import TypiClust

logger = logging.getLogger(__name__)

COVERAGE = "coverage"
"""What a round's query is called that was made in this way."""

_VIEW_PX = 32
_MIN_PER_SLIDE = 60
_LIMIT = 1000
_NOISE_OD = 0.01  # smaller differences are compression and grain, not tissue
_SPACE_WEIGHT = 0.5  # of the squared distance between two regions, against their colours
FloatArray = npt.NDArray[np.float64]


class Coverage(NamedTuple):
    """Regions that cover tissue, and all that were looked at: columns of the candidates and ``score``."""

    rows: list[RegionQuery]
    pool: pd.DataFrame


def coverage(
    task: TaskSite,
    candidates: pd.DataFrame,
    n: int,
    generator: np.random.Generator,
    *,
    purpose: Purpose,
    known: Sequence[Region] = (),
    why: str = "first round",
    progress: Progress | None = None,
) -> Coverage:
    """Choose regions that cover the slides, and within each slide its kinds of tissue and its space.

    Slides take turns, one of each patient first. Within a slide regions are grouped by colour, texture and place, and
    the most typical of each group is taken, large groups first: outliers, such as folds and ink, come last. No model is
    needed; the colours are read at low magnification.

    Args:
        task: the task's site.
        candidates: the open regions of this purpose.
        n: how many to choose.
        generator: source of all randomness.
        purpose: what the answers are for.
        known: regions that were asked for or answered before; what they show is not asked for again.
        why: first words of the reasons.
        progress: told how many slides are done.

    Returns:
        At most n regions, slides in turn.

    Raises:
        PoolError: none of the slides can be read.
    """
    tables = {str(name): group.reset_index(drop=True) for name, group in candidates.groupby("slide", sort=True)}
    order = slide_order(task, list(tables), generator)
    per_slide = max(_MIN_PER_SLIDE, (task.settings.max_candidates or _LIMIT) // max(min(len(order), n), 1))
    seen: dict[str, tuple[pd.DataFrame, FloatArray, FloatArray]] = {}
    while True:  # ends: each time around, a slide that cannot be read has left, or all are there
        shares = dict(zip(order, turns([len(tables[name]) for name in order], n).tolist(), strict=True))
        chosen = [name for name in order if shares[name]]
        missing = [name for name in chosen if name not in seen]
        if not missing:
            break
        for done, name in enumerate(missing):
            if progress is not None:
                progress(done, len(missing))
            rows = np.sort(generator.permutation(len(tables[name]))[: max(per_slide, shares[name])])
            try:
                seen[name] = _look(task, name, tables[name].iloc[rows].reset_index(drop=True), known)
            except (SlideError, UnknownItemError) as error:
                logger.warning("%d regions of %s are left out: %s", len(tables[name]), name, error)
                order.remove(name)
    if not chosen:
        raise PoolError("no slide with open regions could be read; the server's log names each slide's reason")
    if progress is not None:
        progress(len(chosen), len(chosen))
    picks = {name: _pick(*seen[name], shares[name], generator) for name in chosen}
    rows_of_turn: list[tuple[int, int, RegionQuery]] = []
    pools = []
    for place, name in enumerate(chosen):
        table, (selection, scores) = seen[name][0], picks[name]
        pools.append(table.assign(score=scores))
        regions = {region.id: region for region in regions_of(table)}
        chosen_here = zip(selection.ids.tolist(), selection.scores.tolist(), strict=True)
        for turn, (number, score) in enumerate(chosen_here):
            reason = _reason(purpose, why, turn + 1, len(selection), name)
            rows_of_turn.append((turn, place, RegionQuery(regions[number], purpose, None, score, reason)))
    rows_of_turn.sort(key=lambda entry: entry[:2])
    return Coverage([row for _, _, row in rows_of_turn], pd.concat(pools, ignore_index=True))


def descriptors(slide: Slide, boxes: npt.ArrayLike) -> FloatArray:
    """Colour and texture of regions at low magnification.

    Args:
        slide: the open slide.
        boxes: (n, 4) x, y, width and height in level-0 pixels.

    Returns:
        (n, 9) float64: mean and standard deviation of the optical density of red, green and blue, the 10th and 90th
        percentile of their mean, and its mean difference between neighbouring pixels.

    Raises:
        SlideReadError: a region cannot be decoded.
    """
    found = []
    for x, y, width, height in np.asarray(boxes, np.int64).reshape(-1, 4).tolist():
        mpp = max(max(width, height) / _VIEW_PX, 1.0) * slide.mpp
        size = tuple(max(round(side * slide.mpp / mpp), 2) for side in (width, height))
        view = slide.read((x, y), (size[0], size[1]), mpp=mpp)
        density = -np.log10((view.astype(np.float64) + 1) / 256)
        grey = density.mean(axis=2)
        texture = (np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
        low, high = np.percentile(grey, (10, 90))
        found.append([*density.mean(axis=(0, 1)), *density.std(axis=(0, 1)), low, high, texture])
    return np.array(found, dtype=np.float64).reshape(-1, 9)


def _look(
    task: TaskSite, name: str, table: pd.DataFrame, known: Sequence[Region]
) -> tuple[pd.DataFrame, FloatArray, FloatArray]:
    """Regions of a slide, their features and those of the known regions on it, on one scale."""
    boxes = table[BOX].to_numpy(np.int64)
    others = np.array([region.bbox_level0 for region in known if region.slide == name], np.int64).reshape(-1, 4)
    with task.catalog.open(name) as slide:
        every = np.concatenate([boxes, others])
        colours = descriptors(slide, every)
    centres = every[:, :2] + every[:, 2:] / 2
    colours = (colours - colours.mean(axis=0)) / np.maximum(colours.std(axis=0), _NOISE_OD) / np.sqrt(colours.shape[1])
    extent = np.sqrt(centres.var(axis=0).sum())
    space = (centres - centres.mean(axis=0)) / max(extent, 1e-6)
    features = np.concatenate([colours, np.sqrt(_SPACE_WEIGHT) * space], axis=1)
    return table, features[: len(boxes)], features[len(boxes) :]


def _pick(
    table: pd.DataFrame, features: FloatArray, known: FloatArray, n: int, generator: np.random.Generator
) -> tuple[Selection, FloatArray]:
    """The n most typical regions of a slide, and how typical each of all is."""
    strategy = TypiClust(min_cluster_size=min(5, max(len(table) // (2 * n), 1)))
    outputs = PoolOutputs(
        ids=table["id"].to_numpy(np.int64), features=features, labelled_features=known if len(known) else None
    )
    return strategy.select(outputs, n, generator), strategy.score(outputs)


def _reason(purpose: Purpose, why: str, number: int, count: int, slide: str) -> str:
    which = f"region {number} of {count}"
    if purpose == "val":
        return f"held out: {which} on {slide} that measure the model, never trained on"
    return f"{why}: {which} that cover the tissue of {slide}, typical of what looks alike there"
