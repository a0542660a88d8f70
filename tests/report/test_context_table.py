# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tral_monai.errors import ConfigError
from tral_monai.report.context_table import context_table

PARAMETERS = {"tile": 12000, "dense": 3000}


def write_run(folder: Path, name: str, macro: float, *, labels: int = 30) -> Path:
    run = folder / name
    run.mkdir()
    rows = {"round": [1, 1], "split": ["val", "test"], "labels": [labels] * 2, "Stroma_f1": [0.5, 0.5]}
    pd.DataFrame({**rows, "f1_micro": [0.5, 0.5], "f1_macro": [0.9, macro]}).to_csv(run / "summary.csv", index=False)
    return run


def test_means_and_differences_by_seed_worked_out_by_hand(tmp_path: Path) -> None:
    macro = {"tile_seed0": 0.4, "tile_seed1": 0.6, "dense_seed0": 0.3, "dense_seed1": 0.6}
    table, markdown = context_table([write_run(tmp_path, *run) for run in macro.items()], PARAMETERS)
    assert table[table["split"] == "test"]["f1_macro"].tolist() == [0.4, 0.6, 0.3, 0.6]
    # Deviations: 0.1 * sqrt(2) of tile, 0.15 * sqrt(2) of dense, and of the differences -0.1 and 0: 0.05 * sqrt(2).
    assert markdown.splitlines() == [
        "| split | context | seeds | labels | parameters | Stroma | f1_micro | f1_macro |",
        "|---|---|---|---|---|---|---|---|",
        "| val | tile | 2 | 30 | 12,000 | 50.0 ± 0.0 | 50.0 ± 0.0 | 90.0 ± 0.0 |",
        "| val | dense | 2 | 30 | 3,000 | 50.0 ± 0.0 | 50.0 ± 0.0 | 90.0 ± 0.0 |",
        "| val | dense - tile | 2 | | | +0.0 ± 0.0 | +0.0 ± 0.0 | +0.0 ± 0.0 |",
        "| test | tile | 2 | 30 | 12,000 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 14.1 |",
        "| test | dense | 2 | 30 | 3,000 | 50.0 ± 0.0 | 50.0 ± 0.0 | 45.0 ± 21.2 |",
        "| test | dense - tile | 2 | | | +0.0 ± 0.0 | +0.0 ± 0.0 | -5.0 ± 7.1 |",
    ]


@pytest.mark.parametrize("other", [("dense_seed1", 30), ("dense_seed0", 31), ("random_seed0", 30)])
def test_only_runs_of_the_same_seeds_and_labels_are_compared(tmp_path: Path, other: tuple[str, int]) -> None:
    runs = [write_run(tmp_path, "tile_seed0", 0.5), write_run(tmp_path, other[0], 0.5, labels=other[1])]
    with pytest.raises(ConfigError, match=f"the same seeds and number of labels, but are .*{other[0]}"):
        context_table(runs, PARAMETERS)
