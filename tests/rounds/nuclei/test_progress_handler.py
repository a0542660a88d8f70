# SPDX-License-Identifier: Apache-2.0
import io

import pytest
from rich.console import Console

from tests.rounds.nuclei.conftest import OPEN_SET
from tral_monai.metrics.annotation_cost import AnnotationTime
from tral_monai.rounds.ledger import ModelRecord, QueryRow
from tral_monai.rounds.nuclei.label_handler import record_field_answers
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle
from tral_monai.rounds.nuclei.progress_handler import FieldProgressHandler


@pytest.fixture
def shown(table, make_table_engine):
    """A handler, its engine in round 1 after an answer of field 0, and what was printed."""
    text = io.StringIO()
    handler = FieldProgressHandler("osal_nd", console=Console(file=text, width=200))
    engine = make_table_engine(2)
    oracle = ArchiveFieldOracle(table, OPEN_SET, time=AnnotationTime(60, 60, 60))
    record_field_answers(engine, 0, oracle.label([0]), table)
    engine.round = 1
    return handler, engine, text, oracle


def test_what_a_run_starts_with(shown):
    handler, engine, text, _ = shown
    handler(engine)
    assert text.getvalue() == "osal_nd  4 fields of view in the pool, 1 annotated, 2 rounds\n"
    engine.ledger.record_model(1, ModelRecord("m", "ff", 1.0, 2, None))
    handler(engine)
    assert text.getvalue().endswith("2 rounds, going on after 1 trained rounds\n")


def test_what_a_round_trains_on_and_cost(shown):
    handler, engine, text, _ = shown
    handler.show_round(engine)  # one image, four boxes, two known nuclei at a minute each
    assert text.getvalue() == "round 1/2  training on 1 fields of view, 4 boxes, 7 minutes ...\n"
    engine.ledger.record_model(1, ModelRecord("m", "ff", 1.0, 2, None))
    handler.show_round(engine)
    assert text.getvalue().count("\n") == 1  # a trained round says nothing


def test_scores(shown):
    handler, engine, text, _ = shown
    handler.show_scores(engine)
    engine.ledger.record_model(1, ModelRecord("m", "ff", 61.4, 7, None))
    engine.ledger.record_evaluation(1, "test", {"map50": 0.4567, "fp_on_unknown": 3.0})
    engine.ledger.record_evaluation(1, "val", {"map50": float("nan"), "fp_on_unknown": 3.0})
    handler.show_scores(engine)
    assert text.getvalue().splitlines() == [
        "round 1/2  no mAP  (no model)",
        "round 1/2  mAP@0.5 test 0.457, 3 on unknown nuclei  (7 epochs in 61 s)",
    ]


def test_what_came_back(shown, table):
    handler, engine, text, oracle = shown
    engine.query = [QueryRow(i, "", 0, 0, None, 0.0, "") for i in (1, 2)]
    record_field_answers(engine, 1, oracle.label([1, 2]), table)
    handler.show_labels(engine)
    assert text.getvalue() == "round 1/2  asked for 2 fields of view: 2 known and 2 unknown of 4 nuclei\n"
