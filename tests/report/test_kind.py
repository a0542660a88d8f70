# SPDX-License-Identifier: Apache-2.0
"""Which report a run gets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.nuclei.conftest import build_run as build_nucleus_run
from tral_monai.__main__ import main
from tral_monai.data.pool import Pool
from tral_monai.errors import LedgerError
from tral_monai.report.handler import ReportHandler
from tral_monai.report.kind import read_run, three_lines, write_csvs, write_report
from tral_monai.report.nuclei.run_data import NucleusRunData
from tral_monai.report.run_data import RunData
from tral_monai.rounds.engine import RoundEngine
from tral_monai.rounds.ledger import Ledger

MakeRun = Callable[..., RunData]


def test_the_ledger_says_which(make_run: MakeRun, tmp_path: Path) -> None:
    tissue, nuclei = make_run("tissue"), build_nucleus_run(tmp_path / "nuclei")
    assert type(read_run(tissue.folder)) is RunData
    assert type(read_run(nuclei.folder)) is NucleusRunData
    assert write_csvs(tissue.folder)[0].read_text().startswith("round,split,labels")
    assert write_csvs(nuclei.folder)[0].read_text().startswith("round,images,boxes_drawn")
    assert "mAP@0.5" in three_lines([nuclei.folder])[1]
    assert "macro F1" in three_lines([tissue.folder])[1]
    assert "Nucleus detection report" in write_report([nuclei.folder]).read_text(encoding="utf-8")
    assert "Active-learning report" in write_report([tissue.folder]).read_text(encoding="utf-8")


def test_the_two_cannot_be_compared(make_run: MakeRun, tmp_path: Path) -> None:
    tissue, nuclei = make_run("a"), build_nucleus_run(tmp_path / "b")
    with pytest.raises(LedgerError, match=r"the runs are a \(tissue\), b \(nuclei\)"):
        write_report([tissue.folder, nuclei.folder])


def test_the_command_of_a_nucleus_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = build_nucleus_run(tmp_path / "a")
    second = build_nucleus_run(tmp_path / "b", strategy="random")
    assert main(["report", str(first.folder), str(second.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"report: {first.folder / 'report.html'}"
    assert [line.split(":")[0] for line in lines[1:]] == ["Spent", "Reached", "Next"]
    assert {"report.html", "summary.csv", "queries.csv"} <= {path.name for path in first.folder.iterdir()}


def test_the_handler_of_the_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = build_nucleus_run(tmp_path / "run", stages=[])
    with Ledger(run.folder / "ledger.sqlite") as ledger, caplog.at_level(logging.INFO, logger="tral_monai"):
        RoundEngine(3, Pool([0, 1, 2]), ledger, run.folder, handlers=[ReportHandler(run.folder)]).run()
    assert (run.folder / "summary.csv").read_text().startswith("round,images,boxes_drawn")
    assert "Nucleus detection report" in (run.folder / "report.html").read_text(encoding="utf-8")
    assert "mAP@0.5 0.50 on test with 5 images" in caplog.text
