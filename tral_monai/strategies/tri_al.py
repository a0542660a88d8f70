# SPDX-License-Identifier: Apache-2.0
"""TRI-AL's query: classes in proportion to their false-negative rate on the validation set."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tral_monai.strategies.allocation import AllocationResult, Mode, Quirks, allocate
from tral_monai.strategies.base import FloatArray, PoolOutputs, Selection, Strategy
from tral_monai.strategies.class_request import class_request, false_negative_rate, pool_counts
from tral_monai.strategies.options import choice
from tral_monai.strategies.registry import register


class _TriAL(Strategy):
    """What the two variants share; they differ in what happens when a class pool runs out."""

    mode: ClassVar[Mode]
    # Quotas are shares of S itself: TRI-AL_OOD stops where the pool is smaller, instead of asking for less.
    _caps_n = False
    needs = frozenset({"pool_classes", "false_negatives", "positives"})

    def __init__(self, *, quirks: Quirks = None) -> None:
        choice(self.name, "quirks", quirks, (None, "released"))
        self.quirks: Quirks = quirks
        self._keeps_row_order = quirks == "released"

    def request(self, outputs: PoolOutputs, n: int) -> AllocationResult:
        """How many samples of each class to ask for, without drawing any: the annotation advice of a round.

        Args:
            outputs: With `false_negatives` and `positives`; `pool_classes` limits the counts where it is given.
            n: Samples to share, S in the paper.
        """
        rate = false_negative_rate(outputs)
        return allocate(
            outputs.array("false_negatives") if self.quirks == "released" else rate,
            n,
            pool_counts(outputs) if outputs.pool_classes is not None else None,
            mode=self.mode,
            quirks=self.quirks,
            eligible=outputs.array("positives") > 0,
        )

    def _score(self, outputs: PoolOutputs) -> FloatArray:
        return false_negative_rate(outputs)[outputs.array("pool_classes")]

    def _select(self, outputs: PoolOutputs, n: int, generator: np.random.Generator) -> Selection:
        allocation = self.request(outputs, n)
        if allocation.stop:
            left, asked = pool_counts(outputs), allocation.requested
            short = [
                f"the pool of {outputs.class_name(i)} holds {left[i]} of {asked[i]} samples asked for"
                for i in allocation.short
            ]
            return Selection.empty("; ".join(short))
        rate = false_negative_rate(outputs)
        reasons = [
            f"FNR of {outputs.class_name(i)} is {rate[i]:.2f}: {count} of {n} asked"
            for i, count in enumerate(allocation.counts)
        ]
        return class_request(
            outputs.ids,
            outputs.array("pool_classes"),
            allocation.counts,
            None if self.quirks == "released" else generator,
            class_scores=rate,
            class_reasons=reasons,
        )


@register
class TriALIter(_TriAL):
    """TRI-AL_ITER: a fixed number of rounds; a class whose pool runs out passes its share on to the others.

    Needs pools sorted by *true* class: it asks the annotator for classes ("46 more of stroma"), and the ids are drawn
    at random from the class pools. `Selection.scores` is the class's false-negative rate.

    Source: Fuster et al. 2023, "Active Learning Based Domain Adaptation for Tissue Segmentation of Histopathological
    Images", Algorithm 1 and section III. Rounding, exhaustion and 0/0, which the paper leaves open, are resolved as in
    `allocate`. Classes that the validation split does not hold have weight 0.

    Args:
        quirks: "released" does as the authors' published program: false-negative *counts* as weights (equal to rates
            only on a balanced validation set), truncation, silent shortfall, and drawing from the head of the pool in
            row order.

    Raises:
        ConfigError: `quirks` is unknown.
    """

    name = "tri_al_iter"
    mode = "iter"


@register
class TriALOOD(_TriAL):
    """TRI-AL_OOD: rounds go on until a class pool cannot give what is asked ("out of data"); nothing is drawn then.

    The stop is told in `Selection.stop`. Otherwise as `TriALIter`; same source and options.

    Args:
        quirks: As for `TriALIter`.

    Raises:
        ConfigError: `quirks` is unknown.
    """

    name = "tri_al_ood"
    mode = "ood"
