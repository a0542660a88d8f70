# SPDX-License-Identifier: Apache-2.0
import pandas as pd

from tests.rounds.nuclei.conftest import OPEN_SET
from tral_monai.data.nuclei.dataset import NucleusDataset
from tral_monai.data.nuclei.fov_table import read_fovs, write_fovs
from tral_monai.rounds.nuclei.label_handler import record_field_answers
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle, NoisyFieldOracle
from tral_monai.rounds.nuclei.training_table import count_answers, training_table


def test_it_holds_what_the_annotator_said_and_nothing_else(make_table_engine, table):
    engine = make_table_engine(2)
    right = ArchiveFieldOracle(table, OPEN_SET)
    # Every lymphocyte is called tumour and boxes are off.
    wrong = NoisyFieldOracle(right, table, OPEN_SET, confusion=[[0, 1, 0], [0, 1, 0], [0, 0, 1]], missed=0.0)
    answers = wrong.label([3, 0])
    record_field_answers(engine, 0, answers, table)
    record_field_answers(engine, 1, right.label([2]), table)
    first = training_table(engine.ledger, table, before_round=1)
    assert first["id"].tolist() == [0, 3]
    assert first["classes"].tolist() == [("tumour", "unknown", "ignored", "tumour"), ()]
    assert first["boxes_px"][0].tolist() == answers.boxes_px[1].tolist()
    assert first["boxes_px"][1].shape == (0, 4)
    assert first["field"].tolist() == ["field_0", "field_3"]
    assert training_table(engine.ledger, table, before_round=2)["id"].tolist() == [0, 2, 3]
    assert training_table(engine.ledger, table)["id"].tolist() == [0, 2, 3]
    assert table["classes"][0] == ("tumour", "fat", "ignored", "lymphocyte")  # the index stays as it was


def test_it_can_be_trained_on(make_table_engine, table, tmp_path):
    engine = make_table_engine(1)
    record_field_answers(engine, 0, ArchiveFieldOracle(table, OPEN_SET).label([0, 1, 3]), table)
    samples = training_table(engine.ledger, table)
    write_fovs(samples, tmp_path / "train.parquet")
    pd.testing.assert_frame_equal(read_fovs(tmp_path / "train.parquet"), samples)
    NucleusDataset(tmp_path / "train.parquet", OPEN_SET.known, role="prototype")
    assert count_answers(samples, ["tumour", "unknown", "lymphocyte", "other"]).tolist() == [1, 3, 1, 0]
