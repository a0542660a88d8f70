# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tral_monai.errors import LedgerError
from tral_monai.report.run_data import RunData

MakeRun = Callable[..., RunData]


def test_figures_of_a_run_are_those_worked_out_by_hand(make_run: MakeRun) -> None:
    run = make_run()
    assert run.classes == ("Blood", "Stroma")
    assert (run.name, run.strategy, run.seed) == ("run", "tri_al_quota", 0)
    assert run.evaluated_rounds == (1, 2)
    assert run.splits == ("val", "test")
    assert run.main_split == "test"
    assert (run.labels_before(1), run.labels_before(2), run.labels_spent) == (4, 8, 8)
    assert run.labels_in(0) == 4
    assert run.minutes_spent == 4.0
    assert run.class_counts(1).tolist() == [2, 2]
    assert run.class_counts(2).tolist() == [4, 4]
    curve = run.curve("Blood_f1", "test")
    assert curve.rounds.tolist() == [1, 2]
    assert curve.labels.tolist() == [4, 8]
    assert curve.values == pytest.approx([10 / 20, 14 / 19])
    confusion = run.confusion(2, "test")
    assert confusion is not None
    assert confusion.tolist() == [[7, 3], [2, 18]]
    assert run.confusion(3, "test") is None
    assert np.isnan(run.metric(2, "test", "no_such_metric"))


def test_full_training_set_falls_back_to_the_index(make_run: MakeRun) -> None:
    full = make_run("a").full_counts
    assert full is not None
    assert full.tolist() == [10, 30]
    recorded = make_run("b", info={"full_counts": {"Blood": 7, "Stroma": 9}}).full_counts
    assert recorded is not None
    assert recorded.tolist() == [7, 9]


def test_answers_join_queries_and_labels(make_run: MakeRun) -> None:
    answers = make_run(asked=["Blood", None, "Blood", "Stroma"], given=["Blood", "Stroma", None, "Stroma"]).answers
    assert answers["class_asked"].tolist() == ["Blood", None, "Blood", "Stroma"]
    assert answers["class_given"].tolist() == ["Blood", "Stroma", None, "Stroma"]
    assert answers["answered"].tolist() == [True] * 4  # a declined sample has been answered
    waiting = make_run("waiting", given=None).answers
    assert waiting["answered"].tolist() == [False] * 4
    assert waiting["class_given"].tolist() == [None] * 4


def test_declined_samples_cost_but_are_no_class(make_run: MakeRun) -> None:
    run = make_run(given=["Blood", None, None, "Stroma"])
    assert run.labels_spent == 8
    assert run.class_counts(2).tolist() == [3, 3]


def test_unfinished_round_is_the_last_one_without_its_end(make_run: MakeRun) -> None:
    assert make_run("done").unfinished_round is None
    stages = [(1, "ROUND_COMPLETED"), (2, "ROUND_STARTED"), (2, "TRAINED")]
    assert make_run("killed", stages=stages).unfinished_round == (2, "trained")
    assert make_run("silent", stages=[]).unfinished_round is None


def test_a_run_without_any_evaluation_can_be_read(make_run: MakeRun) -> None:
    run = make_run(confusions={}, asked=[], stages=[(1, "ROUND_STARTED")])
    assert run.evaluated_rounds == ()
    assert run.main_split is None
    assert run.curve("f1_macro", "val").rounds.size == 0
    assert run.answers.empty


def test_reading_writes_nothing(make_run: MakeRun) -> None:
    run = make_run()
    before = {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    RunData.from_folder(run.folder)
    assert {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()} == before


def test_a_write_that_was_killed_half_way_is_taken_back(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    connection = sqlite3.connect(run.folder / "ledger.sqlite", isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that the half-written transaction reaches the disk
    connection.execute("BEGIN")
    connection.execute("DELETE FROM metrics")
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, '2026-01-01T00:00:00+00:00')", [(9, "x" * 500 + str(i)) for i in range(200)]
    )
    killed = tmp_path / "killed"
    killed.mkdir()
    for path in run.folder.glob("ledger.sqlite*"):
        shutil.copy(path, killed / path.name)
    connection.execute("ROLLBACK")
    connection.close()
    assert (killed / "ledger.sqlite-journal").stat().st_size > 0
    assert RunData.from_folder(killed).evaluated_rounds == (1, 2)


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"no ledger\.sqlite in .*expected the output folder"):
        RunData.from_folder(tmp_path)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(LedgerError, match="is not the ledger of a run"):
        RunData.from_folder(tmp_path)


def test_a_database_without_our_tables_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(LedgerError, match="no such table"):
        RunData.from_folder(tmp_path)


def test_a_ledger_that_was_never_begun_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    with sqlite3.connect(run.folder / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM run")
    with pytest.raises(LedgerError, match="names no classes"):
        RunData.from_folder(run.folder)


def test_a_confusion_of_another_class_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    with sqlite3.connect(run.folder / "ledger.sqlite") as connection:
        connection.execute("INSERT INTO confusion VALUES (2, 'val', 'Nerve', 'Blood', 3)")
    with pytest.raises(LedgerError, match="names 'Nerve' / 'Blood'"):
        RunData.from_folder(run.folder).confusion(2, "val")
