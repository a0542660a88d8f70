# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m tral_monai ledger``."""

from tral_monai.__main__ import main
from tral_monai.rounds.ledger import LabelRow, Ledger, QueryRow


def test_rounds_labels_minutes_and_the_stage_of_a_run_that_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin({"strategy": "random", "seed": 3})
        ledger.record_labels(0, [LabelRow(i, "a.tif", 0, 0, "x", 1.0, 0.5) for i in range(4)])
        for stage in ("ROUND_STARTED", "TRAINED", "EVALUATED"):
            ledger.record_event(1, stage)
        ledger.record_evaluation(1, "val", {"f1_macro": 0.25}, [[1]], ["x"])
        ledger.record_query(1, [QueryRow(9, "a.tif", 0, 0, None, 0.0, "")])
    assert main(["ledger", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "random, seed 3" in shown
    row = next(line for line in shown.splitlines() if "evaluated" in line)
    cells = [cell.strip() for cell in row.replace("┃", "│").split("│")[1:-1]]
    # Four labels at half a minute; one asked, none answered; test was not evaluated yet.
    assert cells == ["1", "4", "2.0", "0.250", "-", "1", "0", "evaluated"]
    assert "4 labels in all, 2.0 minutes of annotation" in shown


def test_a_folder_without_a_ledger_is_told(tmp_path, capsys):
    assert main(["ledger", str(tmp_path)]) != 0
    assert "holds no ledger.sqlite" in capsys.readouterr().err
    assert not (tmp_path / "ledger.sqlite").exists()
