# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.rounds.nuclei.conftest import OPEN_SET
from tral_monai.errors import LedgerError
from tral_monai.metrics.annotation_cost import AnnotationTime
from tral_monai.rounds.ledger import LabelRow, NucleusRow, QueryRow
from tral_monai.rounds.nuclei.label_handler import FieldLabelHandler, record_field_answers
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle


@pytest.fixture
def oracle(table):
    return ArchiveFieldOracle(table, OPEN_SET, time=AnnotationTime(12, 6, 3))


def test_what_is_written_down(make_table_engine, table, oracle):
    engine = make_table_engine(1)
    record_field_answers(engine, 0, oracle.label([1, 3]), table)
    labels = [LabelRow(*row) for row in engine.ledger.labels().drop(columns="round").itertuples(index=False)]
    assert labels == [
        LabelRow(1, "S1", 64, 32, "annotated", 2.0, 0.4),  # its slide
        LabelRow(3, "field_3", 192, 32, "annotated", 0.0, 0.2),  # its field: nobody knows the slide
    ]
    assert [NucleusRow(*row) for row in engine.ledger.nuclei().itertuples(index=False)] == [
        NucleusRow(1, 0, 0.0, 20.0, 8.0, 28.0, "unknown"),
        NucleusRow(1, 1, 10.0, 20.0, 18.0, 28.0, "unknown"),
    ]
    assert engine.pool.labelled.tolist() == [1, 3]


def test_nothing_is_marked_that_the_ledger_refused(make_table_engine, table, oracle):
    engine = make_table_engine(1)
    record_field_answers(engine, 0, oracle.label([1]), table)
    with pytest.raises(LedgerError, match="a budget is spent once"):
        record_field_answers(engine, 1, oracle.label([2, 1]), table)
    assert engine.pool.labelled.tolist() == [1]


def test_a_query_is_answered_once(make_table_engine, table, oracle):
    engine = make_table_engine(2)
    engine.round = 1
    engine.query = [QueryRow(i, "", 0, 0, None, 0.0, "") for i in (2, 0)]
    handler = FieldLabelHandler(oracle, table)
    handler(engine)
    before = engine.ledger.labels()
    assert before["sample_id"].tolist() == [0, 2]
    assert before["round"].tolist() == [1, 1]
    handler(engine)
    assert engine.ledger.labels().equals(before)
