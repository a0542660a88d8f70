# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m tral_monai ledger``."""

from tral_monai.__main__ import main
from tral_monai.rounds.ledger import LabelRow, Ledger, ModelRecord, NucleusRow, QueryRow
from tral_monai.rounds.regions.region import Region, RegionAnswer, RegionQuery
from tral_monai.rounds.regions.region_ledger import RegionLedger


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


def test_images_boxes_and_nuclei_of_a_nucleus_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin({"task": "nuclei", "strategy": "osal_nd", "seed": 0, "classes": ["Tum"]})
        ledger.record_labels(0, [LabelRow(1, "f", 0, 0, "annotated", 3.0, 0.5)])
        ledger.record_evaluation(1, "test", {"map50": 0.25})
        ledger.record_query(1, [QueryRow(i, "f", 0, 0, None, 0.0, "") for i in (2, 3)])
        answers = ["Tum", "Tum", "unknown", "ignored"]
        nuclei = [NucleusRow(2, i, 0.0, 0.0, 9.0, 9.0, answer) for i, answer in enumerate(answers)]
        ledger.record_labels(1, [LabelRow(2, "f", 0, 0, "annotated", 4.0, 0.5)], nuclei=nuclei)
        ledger.record_event(1, "ROUND_COMPLETED")
    assert main(["ledger", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if "images" in line)
    assert header.split() == [
        "round",
        "images",
        "boxes",
        "minutes",
        "test",
        "asked",
        "known",
        "unknown",
        "last",
        "stage",
    ]
    assert next(line for line in lines if "completed" in line).split() == [
        *("1", "1", "3", "0.5", "0.250", "2", "2", "1", "completed")
    ]
    assert "2 images, 7 boxes in all, 1.0 minutes of annotation" in lines


def test_a_site_where_people_annotate_is_shown_by_round(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    regions = [Region("a.tif", 100 * i, 0, 100, 100) for i in range(4)]
    with RegionLedger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin({"task": "tissue", "classes": ["Tumor", "Stroma"]})
        ledger.record_info({"strategy_round_0": "random"})
        ledger.record_region_query(0, [RegionQuery(r, "train", None, 1.0, "why") for r in regions[:3]])
        answers = [RegionAnswer(r, "train", (("Tumor", r.polygon),), 5, 1.5) for r in regions[:2]]
        ledger.record_submission("a.xml", sha256="1", slide="a.tif", client="c", answers=answers)
        ledger.record_model(1, ModelRecord("model.pt", "x", 1.0, 3, 0.5))
        ledger.record_evaluation(1, "val", {"f1_macro": 0.75})
        ledger.record_info({"published_round_1": True, "training_note": "it is the first model here"})
        ledger.record_region_query(1, [RegionQuery(regions[3], "train", "Stroma", 1.0, "why")])
    assert main(["ledger", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in out.splitlines() if line.startswith("│")]
    assert rows == [["0", "3", "2", "1", "10", "3.0", "-", "-"], ["1", "1", "0", "1", "0", "0.0", "0.750", "yes"]]
    assert "2 regions in all, 3.0 minutes of annotation" in out
    assert "newest training: it is the first model here" in out
