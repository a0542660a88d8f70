# SPDX-License-Identifier: Apache-2.0
"""scripts/compare_nucleus_strategies.py, on runs that are there already."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.report.nuclei.conftest import build_run

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "compare_nucleus_strategies.py"


def test_tables_curves_and_page_of_each_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for strategy in ("random", "osal_nd"):
        for seed in (0, 1):
            scores = {(1, "test"): 0.2, (2, "test"): 0.3 + seed / 50, (3, "test"): 0.4 + (strategy != "random") / 10}
            build_run(tmp_path / "2+1" / f"{strategy}_fold0_seed{seed}", strategy=strategy, seed=seed, scores=scores)
    arguments = ["--dataset", "coco", "--dataset-dir", "unused", "--output-dir", str(tmp_path), "--table-only"]
    choice = ["--strategies", "random", "osal_nd", "--open-sets", "2+1", "1+2", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, *choice])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    folder = tmp_path / "2+1"
    assert len(pd.read_csv(folder / "comparison.csv")) == 4
    strategies = pd.read_csv(folder / "strategies.csv").set_index("strategy")
    assert strategies.loc["osal_nd", "map50_minus_random"] == pytest.approx(0.1)
    assert "| `osal_nd` | 2 | 50.0 ± 0.0 |" in (folder / "comparison.md").read_text(encoding="utf-8")
    assert (folder / "comparison.png").stat().st_size > 10_000
    assert "Compared with other runs" in (folder / "comparison.html").read_text(encoding="utf-8")
    assert not (tmp_path / "1+2").exists()  # no run there: nothing to compare
