# SPDX-License-Identifier: Apache-2.0
import math
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from tral_monai.errors import LedgerError, OutputError
from tral_monai.rounds.ledger import LabelRow, Ledger, ModelRecord, NucleusRow, QueryRow


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "run" / "ledger.sqlite") as ledger:
        yield ledger


def query_row(sample_id: int) -> QueryRow:
    return QueryRow(sample_id, "a.tif", 64, 192, "Stroma", 0.5, "most uncertain")


def label_row(sample_id: int, given: str | None = "Stroma") -> LabelRow:
    return LabelRow(sample_id, "a.tif", 64, 192, given, 1.0, 0.1)


def test_begin_records_identity_and_provenance_once(ledger):
    assert ledger.begin({"seed": 1, "classes": ["a", "b"]}, {"commit": "abc"}) is False
    assert ledger.begin({"seed": 1, "classes": ("a", "b")}, {"commit": "other"}) is True
    info = ledger.info()
    assert info["seed"] == 1
    assert info["commit"] == "abc"


def test_another_identity_is_refused_with_every_difference(ledger):
    ledger.begin({"seed": 1, "strategy": "random", "budget": 5})
    with pytest.raises(LedgerError, match=r"seed: recorded 1, asked 2; strategy: recorded 'random', asked 'balanced'"):
        ledger.begin({"seed": 2, "strategy": "balanced", "budget": 5})


def test_identity_cannot_be_changed_later(ledger):
    ledger.begin({"seed": 1})
    with pytest.raises(LedgerError, match="'seed'.*cannot change"):
        ledger.record_info({"seed": 2, "note": "x"})
    assert "note" not in ledger.info()


def test_models_and_evaluations(ledger):
    assert ledger.model(1) is None
    ledger.record_model(1, ModelRecord("rounds/1/model.pt", "ff", 2.0, 7, None))
    assert ledger.model(1) == ModelRecord("rounds/1/model.pt", "ff", 2.0, 7, None)
    assert ledger.confusion(1, "val", ["a", "b"]) is None
    ledger.record_evaluation(1, "val", {"f1_macro": 0.5, "a_f1": math.nan}, [[3, 1], [0, 2]], ["a", "b"])
    assert ledger.confusion(1, "val", ["a", "b"]) == [[3, 1], [0, 2]]
    metrics = ledger.table("metrics").set_index("name")["value"]
    assert metrics["f1_macro"] == 0.5
    assert math.isnan(metrics["a_f1"])


def test_a_query_is_recorded_whole_and_once(ledger):
    ledger.record_query(1, [query_row(4), query_row(2)])
    assert [row.sample_id for row in ledger.query(1)] == [4, 2]
    with pytest.raises(LedgerError, match="round 1 has a query already"):
        ledger.record_query(1, [query_row(9)])
    with pytest.raises(LedgerError, match="asked for before"):
        ledger.record_query(2, [query_row(8), query_row(4)])
    assert ledger.query(2) == []


def test_a_label_is_recorded_once(ledger):
    ledger.record_labels(0, [label_row(1)])
    with pytest.raises(LedgerError, match="a budget is spent once"):
        ledger.record_labels(1, [label_row(5), label_row(1)])
    ledger.record_labels(1, [label_row(5, None)])
    assert ledger.labels()["sample_id"].tolist() == [1, 5]
    assert ledger.labels(before_round=1)["sample_id"].tolist() == [1]


def test_a_detector_is_evaluated_without_a_confusion_matrix(ledger):
    assert ledger.metrics(1, "test") == {}
    ledger.record_evaluation(1, "test", {"map50": 0.5, "tumour_ap50": math.nan})
    ledger.record_evaluation(2, "test", {"map50": 0.75})
    metrics = ledger.metrics(1, "test")
    assert metrics["map50"] == 0.5
    assert math.isnan(metrics["tumour_ap50"])
    assert ledger.metrics(1, "val") == {}
    assert ledger.table("confusion").empty


def test_auxiliary_models(ledger):
    record = ModelRecord("rounds/1/auxiliary.pt", "ff", 2.0, 7, 0.5)
    ledger.record_auxiliary_model(1, "prototype", record)
    assert ledger.auxiliary_model(1, "prototype") == record
    assert ledger.auxiliary_model(1, "k_plus_one") is None
    assert ledger.auxiliary_model(2, "prototype") is None
    assert ledger.model(1) is None
    again = record._replace(sha256="00")
    ledger.record_auxiliary_model(1, "prototype", again)
    assert ledger.auxiliary_model(1, "prototype") == again


def nucleus_row(sample_id: int, nucleus: int, answer: str = "tumour") -> NucleusRow:
    return NucleusRow(sample_id, nucleus, 1.5, 2.0, 9.0, 8.25, answer)


def test_nuclei_are_recorded_with_the_labels(ledger):
    ledger.record_labels(0, [label_row(7)], nuclei=[nucleus_row(7, 0), nucleus_row(7, 1, "unknown")])
    ledger.record_labels(1, [label_row(3)], nuclei=[nucleus_row(3, 0)])
    nuclei = ledger.nuclei()
    assert [NucleusRow(*row) for row in nuclei.itertuples(index=False)] == [
        nucleus_row(3, 0),
        nucleus_row(7, 0),
        nucleus_row(7, 1, "unknown"),
    ]
    assert ledger.nuclei(before_round=1)["sample_id"].tolist() == [7, 7]


def test_nuclei_and_labels_are_recorded_both_or_not_at_all(ledger):
    with pytest.raises(LedgerError, match=r"nuclei of samples \[8\] cannot be recorded without a label row of each"):
        ledger.record_labels(0, [label_row(7)], nuclei=[nucleus_row(8, 0)])
    with pytest.raises(LedgerError, match="a budget is spent once"):
        ledger.record_labels(0, [label_row(7)], nuclei=[nucleus_row(7, 0), nucleus_row(7, 0)])
    assert ledger.labels().empty
    assert ledger.nuclei().empty


def test_a_ledger_from_before_there_were_nuclei_opens(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.begin({"seed": 1})
        ledger.record_labels(0, [label_row(1)])
    with sqlite3.connect(path) as old:
        old.execute("DROP TABLE nuclei")
        old.execute("DROP TABLE auxiliary_models")
    old.close()
    with Ledger(path) as ledger:
        assert ledger.labels()["sample_id"].tolist() == [1]
        assert ledger.nuclei().empty
        assert ledger.auxiliary_model(1, "prototype") is None


def test_events_keep_their_first_time(ledger):
    ledger.record_event(1, "TRAINED")
    first = ledger.table("events")
    ledger.record_event(1, "TRAINED")
    assert first[["round", "stage"]].values.tolist() == [[1, "TRAINED"]]
    assert ledger.table("events").equals(first)


def test_unknown_table(ledger):
    with pytest.raises(LedgerError, match="no table 'secrets'"):
        ledger.table("secrets")


def test_a_file_that_is_no_ledger(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is no database, but long enough to be read as one" * 20)
    with pytest.raises(LedgerError, match="is not a ledger"):
        Ledger(path)


def test_a_locked_ledger_says_so(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger._db.execute("PRAGMA busy_timeout=10")
        other = sqlite3.connect(path)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="cannot write to the ledger .*locked"):
            ledger.record_event(1, "TRAINED")
        other.close()


def test_a_kill_inside_a_transaction_leaves_what_was_acknowledged_and_nothing_else(tmp_path):
    code = """
import os, signal, sys
from tral_monai.rounds.ledger import LabelRow, Ledger
ledger = Ledger(sys.argv[1])
ledger.record_labels(0, [LabelRow(1, "a.tif", 0, 0, "x", 1.0, 0.1)])
def rows():
    yield LabelRow(2, "a.tif", 0, 0, "x", 1.0, 0.1)
    os.kill(os.getpid(), signal.SIGKILL)
with ledger._transaction():
    for row in rows():
        ledger._db.execute("INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (row.sample_id, 1, *row[1:]))
"""
    path = tmp_path / "ledger.sqlite"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        assert ledger.labels()["sample_id"].tolist() == [1]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        OutputError, match=r"the folder '.*file/run' cannot be made \(.*\); choose another with output_dir"
    ):
        Ledger(tmp_path / "file" / "run" / "ledger.sqlite")


def test_a_full_disk_is_no_matter_of_the_ledger(ledger):
    ledger.record_model(1, ModelRecord("model.pt", "ff", 1.0, 1, None))
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite then says is what it says of a full disk
    with pytest.raises(OutputError, match=r"ledger\.sqlite: database or disk is full; check .* free space, then do"):
        ledger.record_info({"long": "x" * 100_000})
    assert "long" not in ledger.info()
    ledger._db.execute("PRAGMA max_page_count = 100000")
    ledger.record_info({"long": "x" * 100_000})
    assert len(ledger.info()["long"]) == 100_000


def test_a_ledger_that_may_not_be_written_to(ledger):
    ledger._db.execute("PRAGMA query_only = ON")
    with pytest.raises(OutputError, match="cannot write to the ledger .*readonly database; check that its folder may"):
        ledger.record_info({"a": 1})
