# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m tral_monai fields``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tral_monai.__main__ import main


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three fields of 40 x 20 px at 0.5 mpp with two, one and three nuclei of three classes."""
    monkeypatch.setenv("COLUMNS", "160")
    categories = ["Tum [x]", "Lym", "Mac"]
    nuclei = [(1, 0), (1, 1), (2, 0), (3, 0), (3, 2), (3, 2)]  # image, class
    for image in (1, 2, 3):
        Image.new("RGB", (40, 20), "white").save(tmp_path / f"f{image}.png")
    data = {
        "info": {"mpp": 0.5},
        "images": [{"id": i, "file_name": f"f{i}.png", "width": 40, "height": 20} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": of, "bbox": [2, 2, 8, 4], "iscrowd": 0}
            for i, (image, of) in enumerate(nuclei)
        ],
    }
    (tmp_path / "set.json").write_text(json.dumps(data))
    return tmp_path / "set.json"


def cells(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]] for line in output.splitlines()]


def test_fields_classes_and_a_setting_of_ones_own(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fields", "coco", str(coco), "--mpp", "0.5", "--known", "Tum [x]", "Str"]) == 0
    output = capsys.readouterr().out
    rows = cells(output)
    assert ["fields", "3 (0.00 mm²)"] in rows
    assert ["size", "40 x 20 px"] in rows
    assert ["mpp", "0.5"] in rows
    assert ["patients", "not known"] in rows
    # 8 x 4 px at half a micrometre.
    assert ["Tum [x]", "3", "50.0%", "3", "4.0 x 2.0", "4.0 px"] in rows
    assert ["Mac", "2", "33.3%", "1", "4.0 x 2.0", "4.0 px"] in rows
    assert ["all but ignored", "6", "", "", "", ""] in rows
    # Three of six nuclei are unknown; in the third field two of three. One known nucleus in each: no ranking.
    assert ["yours", "Tum [x], Str (absent: Str)", "Lym, Mac", "50.0%", "1 of 3", "-"] in rows
    assert "Problems (1)\n  no nucleus has the class 'Str' of --known; there are ['Lym', 'Mac', 'Tum [x]']\n" in output


def test_what_would_end_a_run_is_said_before_it(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fields", "coco", str(coco), "--mpp", "0.5", "--known", "Lym"]) == 0
    assert "No problems." in capsys.readouterr().out
    data = json.loads(coco.read_text())
    for image, mpp in zip(data["images"], (0.25, 0.5, 0.5), strict=True):
        image["mpp"] = mpp
    coco.write_text(json.dumps(data))
    assert main(["fields", "coco", str(coco)]) == 0
    told = capsys.readouterr().out.split("Problems (1)")[1]
    assert "the fields have 0.25 to 0.5 micrometres per pixel; say at which resolution" in told
    assert "with fov_mpp, such as --fov_mpp 0.5 of a run" in told


def test_problems_are_listed_and_told_by_the_status(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco.with_name("f2.png").unlink()
    assert main(["fields", "coco", str(coco), "--mpp", "0.5"]) == 1
    output = capsys.readouterr().out
    assert "f2" in output.split("Problems")[1]
    assert ["fields", "2 (0.00 mm²)"] in cells(output)


def test_named_settings_of_consep(
    tral_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["fields", "consep", str(tral_data / "consep"), "--no-images"]) == 0
    rows = {row[0]: row for row in cells(capsys.readouterr().out) if row}
    # The share of unknown nuclei and the rank correlation of known and total counts that are known of this data set.
    assert [rows[setting][3] for setting in ("5+2", "4+3", "3+4", "2+5")] == ["2.6%", "8.4%", "15.6%", "64.4%"]
    assert [rows[setting][5] for setting in ("5+2", "4+3", "3+4")] == ["0.99", "0.97", "0.92"]


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fields", "consep", str(tmp_path / "nowhere")]) == 1
    assert "error: there is no folder 'nowhere'" in capsys.readouterr().err
