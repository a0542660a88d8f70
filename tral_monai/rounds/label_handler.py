# SPDX-License-Identifier: Apache-2.0
"""The step that asks the oracle and writes its answers down."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import LabelRow
from tral_monai.rounds.oracles import Answers, Oracle


class LabelHandler:
    """Ask the oracle for the labels of the round's query.

    Args:
        oracle: who answers.
        index: triplet index with ``id, slide, x_level0, y_level0``.
        classes: class names in the network's order.
    """

    def __init__(self, oracle: Oracle, index: pd.DataFrame, classes: Sequence[str]) -> None:
        self._oracle, self._index, self._classes = oracle, index, tuple(classes)

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round has asked."""
        engine.add_event_handler(RoundEvents.QUERIED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Record the answers unless the ledger holds them."""
        labels = engine.ledger.labels()
        if (labels["round"] == engine.round).any():
            return
        answers = self._oracle.label([row.sample_id for row in engine.query])
        record_answers(engine, engine.round, answers, self._index, self._classes)


def record_answers(
    engine: RoundEngine, round_: int, answers: Answers, index: pd.DataFrame, classes: Sequence[str]
) -> None:
    """Write answers to the ledger, then mark them in the pool: the ledger comes first, for it decides after a kill."""
    rows = index.set_index("id").loc[answers.ids]
    engine.ledger.record_labels(
        round_,
        [
            LabelRow(int(i), slide, int(x), int(y), classes[given] if given >= 0 else None, float(cost), float(minutes))
            for i, slide, x, y, given, cost, minutes in zip(
                answers.ids,
                rows["slide"],
                rows["x_level0"],
                rows["y_level0"],
                answers.classes,
                answers.cost_labels,
                answers.cost_minutes,
                strict=True,
            )
        ],
    )
    engine.pool.label(answers.ids[answers.classes >= 0])
    engine.pool.reject(answers.ids[answers.classes < 0])
