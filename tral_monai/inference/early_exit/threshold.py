# SPDX-License-Identifier: Apache-2.0
"""From which confidence on tiles may exit early: the largest coverage whose disagreement is bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from tral_monai.errors import ConfigError

_COVERAGES = np.arange(1, 21) / 20  # candidates: the surest 5 %, 10 %, ... of the tiles


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and what it was chosen by.

    Attributes:
        threshold: a tile whose confidence is at least this exits; None where no threshold keeps the promise.
        tiles: calibration tiles.
        exited: of these, how many exit.
        disagreeing: of the exited, how many show another value in the map than with the full model.
        upper_bound: Clopper-Pearson upper bound of the share of disagreeing among exited tiles, at the level of the
            test that the threshold passed; 0 where nothing exits.
    """

    threshold: float | None
    tiles: int
    exited: int
    disagreeing: int
    upper_bound: float


def choose_threshold(
    confidence: npt.NDArray[np.floating[Any]],
    disagrees: npt.NDArray[np.bool_],
    *,
    max_disagreement: float,
    confidence_level: float = 0.95,
) -> ThresholdChoice:
    """Choose the largest coverage at which at most ``max_disagreement`` of the exited tiles disagree.

    The claim holds with probability ``confidence_level`` over draws of the calibration tiles, if these are drawn
    independently from what the model will see. Looking for the best of several thresholds makes a bound per
    threshold too optimistic, so the exact binomial tests of the candidates (the surest 5 %, 10 %, ... of the tiles)
    share the error probability by the fallback procedure (Wiens 2003, https://doi.org/10.1002/pst.64), in the manner of
    "Learn then Test" (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052): half of it goes to the smallest
    candidate that could pass, half to the first with half of the tiles, below which early exit gains little. Where a
    candidate passes, what it was tested at goes on to the next.

    Args:
        confidence: (n,) of the early decision.
        disagrees: (n,) whether the early decision shows another value in the map than the full model.
        max_disagreement: share of the exited tiles, above 0 and below 1.
        confidence_level: above 0 and below 1.

    Returns:
        The choice; its threshold is None where no candidate passes.

    Raises:
        ConfigError: a share is out of range, the arrays differ in length, or a confidence is not finite.
    """
    for name, share in (("max_disagreement", max_disagreement), ("confidence_level", confidence_level)):
        if not 0.0 < share < 1.0:
            raise ConfigError(f"{name} must lie above 0 and below 1, but is {share}")
    if confidence.ndim != 1 or confidence.shape != disagrees.shape:
        raise ConfigError(
            f"expected one confidence and one disagreement per tile, but got shapes {confidence.shape} and "
            f"{disagrees.shape}"
        )
    if not np.isfinite(confidence).all():
        raise ConfigError("confidences must be finite, but some are NaN or infinite; check the model's weights")
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    descending, errors = confidence[order], np.cumsum(disagrees[order])
    alpha = 1.0 - confidence_level
    # Too few tiles for the first test to pass: known before a label is looked at, so it costs nothing.
    fewest = math.log(alpha / 2) / math.log1p(-max_disagreement)
    counts = sorted({math.ceil(share * n) for share in _COVERAGES if share * n >= fewest})
    best = ThresholdChoice(None, n, 0, 0, 0.0)
    level, halfway_reached = alpha / 2, False
    for count in counts:
        if not halfway_reached and 2 * count >= n:
            level, halfway_reached = level + alpha / 2, True
        exited = int(np.searchsorted(-descending, -descending[count - 1], side="right"))  # with all ties
        wrong = int(errors[exited - 1])
        if level > 0 and stats.binom.cdf(wrong, exited, max_disagreement) <= level:
            bound = float(stats.beta.ppf(1.0 - level, wrong + 1, exited - wrong)) if wrong < exited else 1.0
            best = ThresholdChoice(float(descending[exited - 1]), n, exited, wrong, bound)
        else:
            level = 0.0
    return best
