# SPDX-License-Identifier: Apache-2.0
"""A small nucleus run whose every figure can be worked out on paper, written with the real ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tral_monai.data.nuclei.fov_table import write_fovs
from tral_monai.report.nuclei.run_data import NucleusRunData
from tral_monai.rounds.ledger import LabelRow, Ledger, ModelRecord, NucleusRow, QueryRow

CLASSES = ["Tum", "Lym"]
UNKNOWN_CLASSES = ["Mac"]
# True classes of the six fields of the pool: 9 known, 5 unknown, 1 ignored; and of one test field.
TRUTH = {
    10: ["Tum", "Tum", "Lym"],
    11: ["Tum", "Mac"],
    0: ["Tum", "Lym", "Mac", "ignored"],
    1: ["Lym", "Lym"],
    2: ["Mac", "Mac", "Tum"],
    3: ["Mac"],
    20: ["Tum", "Lym", "Mac"],
}
INITIAL = [10, 11]
QUERIED = {1: [0, 1], 2: [2]}
MAP50 = {(1, "test"): 0.2, (2, "test"): 0.3, (3, "test"): 0.5}


def answers(sample: int) -> list[str]:
    return ["unknown" if name in UNKNOWN_CLASSES else name for name in TRUTH[sample]]


def box(number: int) -> tuple[float, float, float, float]:
    return (10.0 + 20 * number, 8.0, 24.0 + 20 * number, 20.0)


def build_run(
    folder: Path,
    *,
    classes: Sequence[str] = CLASSES,
    strategy: str = "osal_nd",
    seed: int = 0,
    fold: int = 0,
    scores: Mapping[tuple[int, str], float] | None = None,
    queried: Mapping[int, Sequence[int]] | None = None,
    answered: Sequence[int] = (1, 2),
    stages: Sequence[tuple[int, str]] = ((1, "ROUND_COMPLETED"), (2, "ROUND_COMPLETED"), (3, "ROUND_COMPLETED")),
    seconds_per_box: float = 6.0,
    reason: str = "pure and uncertain",
    image: Path | None = None,
    table: bool = True,
    info: dict[str, Any] | None = None,
    slide: str = "field.png",
) -> NucleusRunData:
    """Three rounds; every argument changes one thing. A box costs ``seconds_per_box``, nothing else costs time."""
    rename = dict(zip(CLASSES, classes, strict=False))
    queried = QUERIED if queried is None else queried

    def given(samples: Sequence[int]) -> tuple[list[LabelRow], list[NucleusRow]]:
        labels, nuclei = [], []
        for sample in samples:
            told = [rename.get(name, name) for name in answers(sample)]
            cost = len(told) * seconds_per_box / 60
            labels.append(LabelRow(sample, slide, 4 * sample, 0, "annotated", float(len(told)), cost))
            nuclei += [NucleusRow(sample, i, *box(i), name) for i, name in enumerate(told)]
        return labels, nuclei

    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.begin(
            {
                "task": "nuclei",
                "strategy": strategy,
                "seed": seed,
                "fold": fold,
                "open_set": "2+1",
                "classes": list(classes),
                "unknown_classes": UNKNOWN_CLASSES,
                "oracle": "archive",
            },
            {
                "class_colors": {classes[0]: [230, 159, 0], "unknown": [90, 90, 90]},
                "versions": {"torch": "2.9.1"},
                "commit": "abc123def456",
                "started_utc": "2026-01-02T03:04:05+00:00",
                **(info or {}),
            },
        )
        labels, nuclei = given(INITIAL)
        ledger.record_labels(0, labels, nuclei=nuclei)
        for (round_, split), value in (MAP50 if scores is None else scores).items():
            ledger.record_evaluation(
                round_,
                split,
                {
                    "map50": value,
                    f"{classes[0]}_ap50": value + 0.1,
                    f"{classes[1]}_ap50": value - 0.1,
                    "ap50_class_agnostic": value + 0.2,
                    "fp_on_unknown": float(round_),
                    "fp_on_unknown_per_nucleus": round_ / 4,
                },
            )
            record = ModelRecord(f"rounds/round_{round_:03d}/model.pt", f"{round_:064x}", 12.5, 7, None)
            ledger.record_model(round_, record)
            ledger.record_auxiliary_model(round_, "prototype", record._replace(path="rounds/auxiliary.pt"))
        for round_, samples in queried.items():
            rows = [QueryRow(s, slide, 4 * s, 0, None, 0.9 - 0.1 * i, reason) for i, s in enumerate(samples)]
            ledger.record_query(round_, rows)
            if round_ in answered:
                labels, nuclei = given(samples)
                ledger.record_labels(round_, labels, nuclei=nuclei)
        for round_, stage in stages:
            ledger.record_event(round_, stage)
    if table:
        write_table(folder, image, rename)
    return NucleusRunData.from_folder(folder)


def write_table(folder: Path, image: Path | None, rename: Mapping[str, str]) -> None:
    rows = [
        {
            "id": sample,
            "field": f"field_{sample}",
            "slide": "",
            "patient": "",
            "hospital": "",
            "image": "" if image is None else str(image),
            "left_px": 4 * sample,
            "top_px": 0,
            "width_px": 100,
            "height_px": 60,
            "mpp": 0.25,
            "fov_mpp": 0.25,
            "boxes_px": np.array([box(i) for i in range(len(names))], np.float32),
            "classes": tuple(rename.get(name, name) for name in names),
            "part": "test" if sample == 20 else "train",
        }
        for sample, names in TRUTH.items()
    ]
    write_fovs(pd.DataFrame(rows), folder / "fovs.parquet")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., NucleusRunData]:
    """`build_run` in a folder of the given name."""

    def make(name: str = "run", **changes: Any) -> NucleusRunData:
        return build_run(tmp_path / name, **changes)

    return make


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A field of 200 x 60 px: blue, its left 40 columns red."""
    rgb = np.full((60, 200, 3), (0, 0, 200), dtype=np.uint8)
    rgb[:, :40] = (200, 0, 0)
    (tmp_path / "images").mkdir()
    Image.fromarray(rgb).save(tmp_path / "images" / "field.png")
    return tmp_path / "images" / "field.png"


def write_predictions(run: NucleusRunData, round_: int, rows: Sequence[tuple[Any, ...]]) -> Path:
    """Rows (sample_id, xmin, ymin, xmax, ymax, label, score)."""
    folder = run.folder / "rounds" / f"round_{round_:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["sample_id", "xmin", "ymin", "xmax", "ymax", "label", "score"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "query_predictions.parquet")
    return folder / "query_predictions.parquet"
