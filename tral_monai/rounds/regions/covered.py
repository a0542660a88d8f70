# SPDX-License-Identifier: Apache-2.0
"""Regions that lie in another answered region: what is in them was annotated, and is learnt, with the larger one."""

from __future__ import annotations

from collections.abc import Sequence

import shapely

from tral_monai.rounds.regions.region import RegionAnswer

COVERED_SHARE = 0.99
"""Part of a region's area from which on it counts as covered."""


def covered_answers(answers: Sequence[RegionAnswer]) -> set[int]:
    """Ids of the regions that another region of the same slide and purpose covers, to one percent.

    Of two regions that cover each other, the larger one stays, and of two equally large ones the one with the greater
    id.

    Args:
        answers: the answers, of any slides.
    """
    covered: set[int] = set()
    outlines = [answer.region.polygon for answer in answers]
    places = [(answer.region.slide, answer.purpose) for answer in answers]
    order = [(outline.area, answer.region.id) for outline, answer in zip(outlines, answers, strict=True)]
    for place in set(places):
        rows = [row for row, other in enumerate(places) if other == place]
        tree = shapely.STRtree([outlines[row] for row in rows])
        for row in rows:
            for index in tree.query(outlines[row], predicate="intersects"):
                other = rows[index]
                if order[other] > order[row]:
                    shared = outlines[other].intersection(outlines[row]).area
                    if shared >= COVERED_SHARE * outlines[row].area:
                        covered.add(answers[row].region.id)
                        break
    return covered
