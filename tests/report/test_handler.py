# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tral_monai.data.pool import Pool
from tral_monai.report.handler import ReportHandler
from tral_monai.report.run_data import RunData
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import LabelRow, Ledger
from tral_monai.rounds.ledger_handler import LedgerHandler


class Measure:
    """Records an evaluation, one label a round, and which files were there when the round began."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.seen: list[set[str]] = []

    def attach(self, engine: RoundEngine) -> None:
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self.look)
        engine.add_event_handler(RoundEvents.TRAINED, self)

    def look(self, engine: RoundEngine) -> None:
        self.seen.append({path.name for path in engine.output_dir.iterdir()} & {"summary.csv", "report.html"})

    def __call__(self, engine: RoundEngine) -> None:
        right = 5 + engine.round
        metrics = {"A_f1": right / 10, "B_f1": right / 10, "f1_micro": right / 10, "f1_macro": right / 10}
        matrix = [[right, 10 - right], [10 - right, right]]
        engine.ledger.record_evaluation(engine.round, "val", metrics, matrix, ["A", "B"])
        engine.ledger.record_labels(engine.round, [LabelRow(engine.round, "s.tif", 0, 0, "A", 1.0, 0.1)])
        if engine.round == self.stop_after:
            engine.stop("enough")


def run_rounds(folder: Path, handler: ReportHandler, measure: Measure) -> None:
    with Ledger(folder / "ledger.sqlite") as ledger:
        identity = LedgerHandler({"strategy": "random", "classes": ["A", "B"]})
        engine = RoundEngine(3, Pool([1, 2, 3, 4]), ledger, folder, handlers=[identity, measure, handler])
        engine.run()


def test_csvs_follow_every_round_and_the_page_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    measure = Measure()
    with caplog.at_level(logging.INFO, logger="tral_monai"):
        run_rounds(tmp_path, ReportHandler(tmp_path), measure)
    assert measure.seen == [set(), {"summary.csv"}, {"summary.csv"}]
    assert (tmp_path / "summary.csv").read_text().splitlines()[1:] == [
        "1,val,0,0.600000,0.600000,0.600000,0.600000",
        "2,val,1,0.700000,0.700000,0.700000,0.700000",
        "3,val,2,0.800000,0.800000,0.800000,0.800000",
    ]
    assert "Macro F1 0.80 on val" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Reached: macro F1 0.80 on val with 2 labels" in caplog.text


def test_every_round_can_have_its_page(tmp_path: Path) -> None:
    measure = Measure()
    run_rounds(tmp_path, ReportHandler(tmp_path, every_round=True), measure)
    assert measure.seen == [set(), {"summary.csv", "report.html"}, {"summary.csv", "report.html"}]


def test_a_run_that_stops_early_has_its_report(tmp_path: Path) -> None:
    run_rounds(tmp_path, ReportHandler(tmp_path), Measure(stop_after=1))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 round evaluated" in page
    assert "was begun but not completed" not in page


def test_other_runs_are_laid_over(make_run: Callable[..., RunData], tmp_path: Path) -> None:
    other = make_run("other", classes=["A", "B"], strategy="tri_al_iter", confusions={(1, "val"): [[5, 5], [5, 5]]})
    folder = tmp_path / "new"
    run_rounds(folder, ReportHandler(folder, compare_with=[other.folder]), Measure())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Compared with other runs" in page
    assert "tri_al_iter" in page
