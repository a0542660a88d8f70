# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m tral_monai report``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tral_monai.__main__ import main
from tral_monai.report.run_data import RunData

MakeRun = Callable[..., RunData]


def test_report_and_csvs_lie_in_the_run(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    assert main(["report", str(run.folder)]) == 0
    assert {path.name for path in run.folder.iterdir()} == {
        "ledger.sqlite",
        "report.html",
        "summary.csv",
        "queries.csv",
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"report: {run.folder / 'report.html'}"
    assert [line.split(":")[0] for line in lines[1:]] == ["Spent", "Reached", "Next"]


def test_a_comparison_can_be_written_elsewhere(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = make_run("a"), make_run("b", strategy="random")
    output = tmp_path / "compared.html"
    assert main(["report", str(run.folder), str(other.folder), "--output", str(output)]) == 0
    assert "Compared with other runs" in output.read_text(encoding="utf-8")
    assert [path.name for path in run.folder.iterdir()] == ["ledger.sqlite"]
    assert "random 0.81 (macro F1)" in capsys.readouterr().out


def test_a_folder_without_a_run_is_an_error_without_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "error: no ledger.sqlite in" in capsys.readouterr().err


def test_torch_is_not_loaded_for_a_report() -> None:
    code = "import sys, tral_monai.cli.report; sys.exit('torch' in sys.modules or 'ignite' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
