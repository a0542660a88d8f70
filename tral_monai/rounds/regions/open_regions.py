# SPDX-License-Identifier: Apache-2.0
"""Which regions may still be asked for, and a fair part of them where there are too many to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from tral_monai.rounds.regions.region import Purpose, Region

BOX = ["x_level0", "y_level0", "width_level0", "height_level0"]
MAX_OVERLAP = 0.25
"""A region that was asked for or answered, or one of which more than this part was, is not asked for again."""


def open_regions(candidates: pd.DataFrame, taken: Sequence[tuple[Region, Purpose]]) -> pd.DataFrame:
    """The candidates that nobody was asked for and nobody has answered.

    Regions that annotators chose themselves lie on no grid, so it is the overlap that counts. A candidate that touches
    a region of the other purpose at all is left out too: what is trained on must not be measured on.

    Args:
        candidates: from :func:`candidates.candidate_regions`.
        taken: every region that was asked for or answered, with its purpose.
    """
    of_slide: dict[str, list[tuple[Region, Purpose]]] = defaultdict(list)
    for region, purpose in taken:
        of_slide[region.slide].append((region, purpose))
    kept = np.ones(len(candidates), dtype=bool)
    for slide, regions in of_slide.items():
        rows = np.flatnonzero(candidates["slide"].to_numpy() == slide)
        if not len(rows):
            continue
        x, y, width, height = candidates.iloc[rows][BOX].to_numpy(np.int64).T
        outlines = shapely.box(x, y, x + width, y + height)
        purposes = candidates["purpose"].to_numpy(object)[rows]
        polygons = np.array([region.polygon for region, _ in regions])
        pairs = shapely.STRtree(outlines).query(polygons)  # (2, k): number of the region, number of the candidate
        shared = shapely.area(shapely.intersection(polygons[pairs[0]], outlines[pairs[1]]))
        part = np.bincount(pairs[1], weights=shared, minlength=len(rows)) / (width * height)
        other = purposes[pairs[1]] != np.array([purpose for _, purpose in regions], dtype=object)[pairs[0]]
        mixed = np.bincount(pairs[1], weights=shared * other, minlength=len(rows)) > 0
        kept[rows[(part > MAX_OVERLAP) | mixed]] = False
    return candidates[kept].reset_index(drop=True)


def fair_part(candidates: pd.DataFrame, limit: int | None, generator: np.random.Generator) -> pd.DataFrame:
    """At most ``limit`` candidates, drawn at random, with as many from each slide as it can give.

    Args:
        candidates: the candidates.
        limit: how many; None takes all.
        generator: source of the draw.
    """
    if limit is None or len(candidates) <= limit:
        return candidates
    slides = candidates["slide"].to_numpy()
    shuffled = generator.permutation(len(candidates))
    turn = np.empty(len(candidates), dtype=np.int64)  # place of each candidate among those of its slide
    turn[shuffled] = pd.Series(slides[shuffled]).groupby(slides[shuffled]).cumcount().to_numpy()
    order = shuffled[np.argsort(turn[shuffled], kind="stable")]
    return candidates.iloc[np.sort(order[:limit])].reset_index(drop=True)


def regions_of(candidates: pd.DataFrame) -> list[Region]:
    """The rows of a table of candidates as regions."""
    boxes = candidates[BOX].to_numpy(np.int64).tolist()
    return [Region(str(slide), *box) for slide, box in zip(candidates["slide"], boxes, strict=True)]


def turns(counts: Sequence[int], n: int) -> npt.NDArray[np.int64]:
    """How many of n each of several places gives when they take turns and none gives more than it has.

    Args:
        counts: what each place has.
        n: how many are wanted.

    Returns:
        (len(counts),) int64; the sum is n, or all that there is.
    """
    given = np.zeros(len(counts), dtype=np.int64)
    have = np.asarray(counts, dtype=np.int64)
    while n > 0 and (given < have).any():
        able = np.flatnonzero(given < have)[:n]
        given[able] += 1
        n -= len(able)
    return given
