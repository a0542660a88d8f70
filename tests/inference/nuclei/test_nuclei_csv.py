# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from tral_monai.inference.nuclei.nuclei_csv import COLUMNS, write_nuclei_csv
from tral_monai.inference.nuclei.nucleus_map import NucleusMap


def test_rows_by_hand(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    write_nuclei_csv(tmp_path / "a.csv", three_nuclei)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [float(value) if value.replace(".", "").isdigit() else value for value in rows[2]] == [
        2, "lymphocyte", 0.75, 0.5, 3, 2, 100.25, 60, 120.75, 80, 55.25, 35, 10.25, 10
    ]  # fmt: skip
    assert rows[3][:6] == ["3", "tumour", "0.5", "1.0", "", ""]


def test_chunks_are_joined_without_a_seam(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    rows = np.arange(45_000) % 3
    columns = ("boxes_level0", "labels", "score", "uncertainty", "distance_known", "distance_unknown")
    many = dataclasses.replace(three_nuclei, **{name: getattr(three_nuclei, name)[rows] for name in columns})
    write_nuclei_csv(tmp_path / "a.csv", many)
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["nucleus"].tolist() == list(range(1, 45_001))
    assert table["xmax_level0"].tolist() == many.boxes_level0[:, 2].tolist()


def test_no_nuclei_leave_the_header(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    columns = ("boxes_level0", "labels", "score", "uncertainty", "distance_known", "distance_unknown")
    empty = dataclasses.replace(three_nuclei, **{name: getattr(three_nuclei, name)[:0] for name in columns})
    write_nuclei_csv(tmp_path / "a.csv", empty)
    assert (tmp_path / "a.csv").read_text() == ",".join(COLUMNS) + "\n"
