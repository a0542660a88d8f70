# SPDX-License-Identifier: Apache-2.0
import numpy as np

from tests.rounds.conftest import CLASSES
from tral_monai.rounds.engine import RoundEvents
from tral_monai.rounds.label_handler import LabelHandler
from tral_monai.rounds.ledger import QueryRow
from tral_monai.rounds.oracles import Answers, ArchiveOracle


class Ask:
    """A query of fixed samples in round 1."""

    def __init__(self, *ids: int) -> None:
        self._ids = ids

    def attach(self, engine):
        engine.add_event_handler(RoundEvents.EVALUATED, self)

    def __call__(self, engine):
        if engine.round == 1:
            engine.query = [QueryRow(i, "a.tif", 0, 0, None, 0.0, "") for i in self._ids]


class DeclinesOdd(ArchiveOracle):
    """An annotator who does not answer for odd ids."""

    def label(self, ids):
        answers = super().label(ids)
        classes = np.where(answers.ids % 2 == 1, -1, answers.classes)
        return Answers(answers.ids, classes, answers.cost_labels, answers.cost_minutes)


def test_answers_are_recorded_with_their_cost_and_mark_the_pool(make_engine, index):
    oracle = DeclinesOdd(index, CLASSES, seconds_per_tile=30)
    engine = make_engine(2, Ask(6, 3, 0), LabelHandler(oracle, index, CLASSES))
    engine.run()
    labels = engine.ledger.labels()
    assert labels["sample_id"].tolist() == [0, 3, 6]
    assert labels["round"].tolist() == [1, 1, 1]
    assert labels["class_given"].tolist()[::2] == ["Blood", "Stroma"]
    assert labels["class_given"].isna().tolist() == [False, True, False]
    assert labels["x_level0"].tolist() == [64, 448, 832]
    assert labels["cost_minutes"].sum() == 1.5
    assert engine.pool.labelled.tolist() == [0, 6]
    assert engine.pool.rejected.tolist() == [3]


def test_a_round_that_is_answered_is_not_asked_again(make_engine, index):
    handler = LabelHandler(ArchiveOracle(index, CLASSES), index, CLASSES)
    engine = make_engine(2, Ask(6), handler)
    engine.run()
    first = engine.ledger.labels()
    engine.run()
    assert engine.ledger.labels().equals(first)
