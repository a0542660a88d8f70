# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ignite.engine import Engine
from rich.console import Console

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import ConfigError
from tral_monai.metrics.ignite_detection import DetectionAp
from tral_monai.report.nuclei.metrics_writer import DetectionMetricsWriter

OPEN_SET = OpenSet(("Tum", "Lym [T]", "Mit"), ("Mac",))


def boxes(*lefts: int) -> np.ndarray[Any, Any]:
    """Squares of 10 px that stand side by side."""
    return np.array([[left, 0, left + 10, 10] for left in lefts], dtype=np.float32).reshape(-1, 4)


def metric_of(names: tuple[str, ...] = ("Tum", "Tum", "Lym [T]", "Mac", "ignored")) -> DetectionAp:
    table = pd.DataFrame({"id": [4], "boxes_px": [boxes(*range(0, 20 * len(names), 20))], "classes": [names]})
    return DetectionAp(table, OPEN_SET)


def evaluate(folder: Path, metric: DetectionAp | None = None, **options: Any) -> str:
    """One of two Tum is found, the Lym with too low a score, and a Mac is taken for a Tum."""
    found = Detections(
        offsets=np.array([0, 3]),
        boxes_px=boxes(0, 40, 60),
        labels=np.array([0, 1, 0]),
        scores=np.array([0.9, 0.3, 0.8]),
    )
    engine = Engine(lambda _, __: {"pred": found, "label": [{"id": 4}]})
    metric = metric or metric_of()
    metric.attach(engine, "map50")
    shown = io.StringIO()
    DetectionMetricsWriter(folder, metric, console=Console(file=shown, width=100), **options).attach(engine)
    engine.run([0])
    return shown.getvalue()


def test_the_file_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", str(tmp_path / "model.pt")])
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"weights")
    evaluate(tmp_path / "new" / "folder", checkpoint=checkpoint, info={"fold": 2})
    text = (tmp_path / "new" / "folder" / "metrics.json").read_text()
    record = json.loads(text)
    figures = record["figures"]
    assert record["classes"] == ["Tum", "Lym [T]", "Mit"]
    assert record["nuclei"] == {"Tum": 2, "Lym [T]": 1, "Mit": 0, "unknown": 1}
    # Tum: precision 1 up to recall 0.5, which 51 of the 101 recalls reach. Mit has no nucleus, so it does not count.
    assert figures["Tum_ap50"] == pytest.approx(51 / 101)
    assert figures["Lym [T]_ap50"] == pytest.approx(1.0)
    assert figures["Mit_ap50"] is None
    assert figures["map50"] == pytest.approx((51 / 101 + 1) / 2)
    # At a score of 0.5: one of three known nuclei is found, and the Mac is neither right nor wrong, but counted.
    assert (figures["precision"], figures["recall"]) == (1.0, pytest.approx(1 / 3))
    assert figures["fp_on_unknown"] == 1
    assert record["operating_score"] == 0.5
    assert record["checkpoint"] == {"name": "model.pt", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert record["info"] == {"fold": 2}
    assert {"versions", "commit", "started_utc"} <= set(record["software"])
    assert record["software"]["command"] == "evaluate.py --checkpoint …/model.pt"
    assert str(tmp_path) not in text


def test_the_table(tmp_path):
    lines = evaluate(tmp_path, title="fold 2").splitlines()
    assert lines[0].strip() == "fold 2"
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows == [
        ["Tum", "2", "0.505", "0.667"],
        ["Lym [T]", "1", "1.000", "0.000"],
        ["Mit", "0", "-", "-"],
        ["mean", "3", "0.752", ""],
        ["any known class", "3", "0.663", "0.500"],
        ["on unknown nuclei", "1", "1 found", ""],
    ]


def test_without_a_checkpoint_and_without_any_nucleus(tmp_path):
    evaluate(tmp_path, metric_of(()))
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["checkpoint"] is None
    assert record["info"] == {}
    assert record["figures"]["map50"] is None


def test_checks(tmp_path):
    with pytest.raises(ConfigError, match="metric must be a DetectionAp"):
        DetectionMetricsWriter(tmp_path, {"map50": metric_of()})
    with pytest.raises(ConfigError, match="info must hold plain values that JSON knows"):
        DetectionMetricsWriter(tmp_path, metric_of(), info={"fold": {2}})
