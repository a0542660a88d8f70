# SPDX-License-Identifier: Apache-2.0
"""A small run whose every figure can be worked out on paper, written with the real ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tral_monai.report.run_data import RunData
from tral_monai.rounds.ledger import LabelRow, Ledger, ModelRecord, QueryRow

CLASSES = ["Blood", "Stroma"]
# Rows: truth. F1 of Blood: 12/18, 16/19 on val, 10/20, 14/19 on test; of Stroma: 16/22, 18/21 and 30/40, 36/41.
CONFUSIONS = {
    (1, "val"): [[6, 4], [2, 8]],
    (1, "test"): [[5, 5], [5, 15]],
    (2, "val"): [[8, 2], [1, 9]],
    (2, "test"): [[7, 3], [2, 18]],
}
CENTRES = [(300, 200), (600, 200), (300, 600), (600, 600)]
ASKED = ["Blood", "Blood", "Blood", "Stroma"]
GIVEN = ["Blood", "Stroma", "Blood", "Stroma"]


def f1_metrics(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, float]:
    """F1 = 2 TP / (2 TP + FP + FN), NaN without counts; FNR = FN / (TP + FN)."""
    counts = np.asarray(matrix)
    metrics: dict[str, float] = {}
    for i, name in enumerate(classes):
        both = int(counts[i].sum() + counts[:, i].sum())
        metrics[f"{name}_f1"] = 2 * int(counts[i, i]) / both if both else math.nan
        true = int(counts[i].sum())
        metrics[f"{name}_fnr"] = 1 - int(counts[i, i]) / true if true else math.nan
    metrics["f1_micro"] = int(np.trace(counts)) / int(counts.sum())
    metrics["f1_macro"] = float(np.nanmean([metrics[f"{name}_f1"] for name in classes]))
    return metrics


def build_run(
    folder: Path,
    *,
    classes: Sequence[str] = CLASSES,
    confusions: dict[tuple[int, str], list[list[int]]] | None = None,
    strategy: str = "tri_al_quota",
    seed: int = 0,
    cost: float = 1.0,
    slide: str = "slide.png",
    slide_path: Path | None = None,
    stages: Sequence[tuple[int, str]] = ((1, "ROUND_COMPLETED"), (2, "ROUND_COMPLETED")),
    asked: Sequence[str | None] = ASKED,
    given: Sequence[str | None] | None = GIVEN,
    reason: str = "most uncertain",
    info: dict[str, Any] | None = None,
) -> RunData:
    """Two rounds, four labels to begin with, four asked for after round 1; every argument changes one thing."""
    rename = dict(zip(CLASSES, classes, strict=False))
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.begin(
            {"strategy": strategy, "seed": seed, "budget": 4, "classes": list(classes), "oracle": "pseudo_label"},
            {
                "class_colors": {classes[0]: [128, 0, 0]},
                "class_pool_sizes": {classes[0]: 10, classes[1]: 30},
                "versions": {"torch": "2.9.1"},
                "commit": "abc123def456",
                "config": {"cohort": "/home/someone/cohort.csv", "learning_rate": 1.5e-4},
                "started_utc": "2026-01-02T03:04:05+00:00",
                **(info or {}),
            },
        )
        first = [(100, classes[0]), (101, classes[0]), (102, classes[1]), (103, classes[1])]
        ledger.record_labels(0, [LabelRow(i, slide, 10 * i, 50, given_, cost, 0.5) for i, given_ in first])
        for (round_, split), matrix in (CONFUSIONS if confusions is None else confusions).items():
            ledger.record_evaluation(round_, split, f1_metrics(matrix, classes), matrix, classes)
            ledger.record_model(
                round_, ModelRecord(f"rounds/round_{round_:03d}/model.pt", f"{round_:064x}", 12.5, 7, 0.25)
            )
        if asked:
            ledger.record_query(
                1,
                [
                    QueryRow(i, slide, *xy, None if a is None else rename.get(a, a), 0.9 - 0.1 * i, reason)
                    for i, (xy, a) in enumerate(zip(CENTRES, asked, strict=True))
                ],
            )
        if asked and given is not None:
            answers = [None if g is None else rename.get(g, g) for g in given]
            rows = enumerate(zip(CENTRES, answers, strict=True))
            ledger.record_labels(1, [LabelRow(i, slide, *xy, g, cost, 0.5) for i, (xy, g) in rows])
        for round_, stage in stages:
            ledger.record_event(round_, stage)
    if slide_path is not None:
        write_index(folder, slide, slide_path)
    return RunData.from_folder(folder)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunData]:
    """`build_run` in a folder of the given name."""

    def make(name: str = "run", **changes: Any) -> RunData:
        return build_run(tmp_path / name, **changes)

    return make


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    """The small run with its slide, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("session")
    slide = write_picture(folder / "slides")
    return build_run(folder / "run", slide_path=slide, info={"command": f"python -m monai.bundle run --slide {slide}"})


def write_index(folder: Path, slide: str, slide_path: Path) -> None:
    pd.DataFrame(
        {
            "id": [0, 1, 2, 3, 100, 101, 102, 103],
            "slide": slide,
            "slide_path": str(slide_path),
            "slide_mpp": 0.25,
            "x_level0": [*(x for x, _ in CENTRES), 1000, 1010, 1020, 1030],
            "y_level0": [*(y for _, y in CENTRES), 50, 50, 50, 50],
        }
    ).to_parquet(folder / "index.parquet")


def write_picture(folder: Path) -> Path:
    """A blue slide of 1200 x 1000 px with a red square of 128 px around (300, 200)."""
    rgb = np.full((1000, 1200, 3), (0, 0, 200), dtype=np.uint8)
    rgb[200 - 64 : 200 + 64, 300 - 64 : 300 + 64] = (200, 0, 0)
    folder.mkdir(parents=True)
    Image.fromarray(rgb).save(folder / "slide.png")
    return folder / "slide.png"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Path of the slide of `write_picture`."""
    return write_picture(tmp_path / "slides")
