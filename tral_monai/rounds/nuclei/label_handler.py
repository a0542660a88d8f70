# SPDX-License-Identifier: Apache-2.0
"""The step that asks for the nuclei of the queried fields of view and writes them down."""

from __future__ import annotations

import pandas as pd

from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import LabelRow, NucleusRow
from tral_monai.rounds.nuclei.oracles import FieldAnswers, FieldOracle

ANNOTATED = "annotated"
"""``class_given`` of a field of view whose nuclei are in the ledger's table ``nuclei``; there may be none."""


class FieldLabelHandler:
    """Ask the oracle for the nuclei of the round's query.

    Args:
        oracle: who answers.
        index: fields of view of the pool.
    """

    def __init__(self, oracle: FieldOracle, index: pd.DataFrame) -> None:
        self._oracle, self._index = oracle, index

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round has asked."""
        engine.add_event_handler(RoundEvents.QUERIED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Record the answers unless the ledger holds them."""
        labels = engine.ledger.labels()
        if (labels["round"] == engine.round).any():
            return
        answers = self._oracle.label([row.sample_id for row in engine.query])
        record_field_answers(engine, engine.round, answers, self._index)


def record_field_answers(engine: RoundEngine, round_: int, answers: FieldAnswers, index: pd.DataFrame) -> None:
    """Write answers to the ledger, then mark them in the pool: the ledger comes first, for it decides after a kill."""
    rows = index.set_index("id").loc[answers.ids]
    labels = [
        LabelRow(int(i), place, int(x), int(y), ANNOTATED, float(boxes), float(minutes))
        for i, place, x, y, boxes, minutes in zip(
            answers.ids,
            field_names(rows),
            rows["left_px"],
            rows["top_px"],
            answers.cost_boxes,
            answers.cost_minutes,
            strict=True,
        )
    ]
    nuclei = [
        NucleusRow(int(i), number, float(box[0]), float(box[1]), float(box[2]), float(box[3]), answer)
        for i, boxes, names in zip(answers.ids, answers.boxes_px, answers.answers, strict=True)
        for number, (box, answer) in enumerate(zip(boxes, names, strict=True))
    ]
    engine.ledger.record_labels(round_, labels, nuclei=nuclei)
    engine.pool.label(answers.ids)


def field_names(rows: pd.DataFrame) -> list[str]:
    """What the ledger calls the place of each field of view: its slide, or where that is unknown its field."""
    return [str(slide) or str(field) for slide, field in zip(rows["slide"], rows["field"], strict=True)]
