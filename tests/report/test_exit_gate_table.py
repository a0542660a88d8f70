# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pandas as pd

from tral_monai.report.exit_gate_table import exit_gate_table


def row(model: int, split: str, exited: int, disagreeing: int, f1: float) -> dict[str, object]:
    scores = {"f1_macro_full": f1, "f1_macro_gated": f1, "f1_macro_early": 0.5}
    counts = {"tiles": 100, "exited": exited, "coverage": exited / 100, "disagreeing": disagreeing}
    return {"model": model, "max_disagreement": 0.02, "split": split, **counts, **scores}


def test_shares_are_means_and_tiles_are_sums():
    rows = [row(0, "val", 40, 0, 0.8), row(1, "val", 60, 1, 0.9), row(0, "test", 0, 0, 0.7), row(1, "test", 0, 0, 0.7)]
    assert exit_gate_table(pd.DataFrame(rows)).splitlines()[2:] == [
        "| 2.0% | val | 50.0 ± 14.1 | 1 of 100 (1.0%) | 85.0 ± 7.1 | 85.0 ± 7.1 | 50.0 ± 0.0 |",
        "| 2.0% | test | 0.0 ± 0.0 | - | 70.0 ± 0.0 | 70.0 ± 0.0 | 50.0 ± 0.0 |",
    ]


def test_one_model_has_no_spread():
    (line,) = exit_gate_table(pd.DataFrame([row(0, "val", 40, 2, 0.8)])).splitlines()[2:]
    assert line == "| 2.0% | val | 40.0 | 2 of 40 (5.0%) | 80.0 | 80.0 | 50.0 |"
