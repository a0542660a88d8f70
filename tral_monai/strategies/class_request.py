# SPDX-License-Identifier: Apache-2.0
"""Drawing from pools sorted by class: a request to the annotator ("annotate more stroma"), not a choice of tiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tral_monai.errors import StrategyError
from tral_monai.strategies.base import FloatArray, IntArray, PoolOutputs, Selection


def false_negative_rate(outputs: PoolOutputs) -> FloatArray:
    """FN / (TP + FN) per class on the validation split (C,); 0 for a class that the split does not hold.

    Raises:
        StrategyError: The validation split holds no sample at all, or more false negatives than samples.
    """
    fn, positives = outputs.array("false_negatives"), outputs.array("positives")
    if not (positives > 0).any():
        raise StrategyError("The validation split holds no sample of any class: false-negative rates are undefined.")
    if (fn > positives).any():
        i = int(np.flatnonzero(fn > positives)[0])
        raise StrategyError(
            f"{outputs.class_name(i)} has {fn[i]:g} false negatives among {positives[i]:g} validation samples; "
            "give counts of the same evaluation."
        )
    return np.divide(fn, positives, out=np.zeros_like(fn), where=positives > 0)


def pool_counts(outputs: PoolOutputs) -> IntArray:
    """Samples left in each class pool (C,)."""
    return np.bincount(outputs.array("pool_classes"), minlength=outputs.n_classes).astype(np.int64)


def draw_rows(classes: IntArray, counts: IntArray, generator: np.random.Generator | None) -> list[npt.NDArray[np.intp]]:
    """Rows drawn from each class: at random, or from the head of the rows' order when there is no generator."""
    drawn = []
    for i, count in enumerate(counts):
        rows = np.flatnonzero(classes == i)
        drawn.append((rows if generator is None else generator.permutation(rows))[:count])
    return drawn


def interleave(parts: list[npt.NDArray[np.intp]]) -> npt.NDArray[np.intp]:
    """One order of all rows in which every prefix holds nearly the same mix of parts as the whole.

    An annotator who stops half-way has then still worked in the proportions that were asked for.
    """
    if not parts:
        return np.empty(0, dtype=np.intp)
    position = np.concatenate([(np.arange(len(p)) + 0.5) / max(len(p), 1) for p in parts])
    part = np.concatenate([np.full(len(p), i) for i, p in enumerate(parts)])
    return np.concatenate(parts)[np.lexsort((part, position))]


def class_request(
    ids: IntArray,
    classes: IntArray,
    counts: IntArray,
    generator: np.random.Generator | None,
    *,
    class_scores: FloatArray,
    class_reasons: list[str],
) -> Selection:
    """Draw `counts` (C,) samples class by class and say why.

    Args:
        ids: (n,) the pool.
        classes: (n,) class pool that each sample lies in.
        counts: (C,) samples to draw, none above its pool.
        generator: Random order within a class; None draws in row order.
        class_scores: (C,) score written to each sample of a class.
        class_reasons: (C,) reason written to each sample of a class.
    """
    rows = interleave(draw_rows(classes, counts, generator))
    asked = classes[rows]
    return Selection(
        ids=ids[rows],
        scores=class_scores[asked],
        class_asked=asked,
        reasons=tuple(class_reasons[i] for i in asked),
    )
