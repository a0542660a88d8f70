# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from rich.console import Console

from tral_monai.errors import ConfigError
from tral_monai.metrics.ignite_metric import ConfusionF1
from tral_monai.report.metrics_writer import MetricsWriter

CLASSES = ("Blood", "Muscle", "Fat [white]")


def evaluate(folder: Path, **options: Any) -> str:
    """Six samples: two of three Blood are right, one is taken for Muscle; three Muscle are right; there is no Fat."""
    predicted = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 1, 1]), 3).float()
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    engine = Engine(lambda _, batch: {"pred": predicted[batch], "label": label[batch]})
    metric = ConfusionF1(CLASSES)
    metric.attach(engine, "f1_macro")
    shown = io.StringIO()
    MetricsWriter(folder, metric, console=Console(file=shown, width=100), **options).attach(engine)
    engine.run([[0, 1], [2, 3], [4, 5]])
    return shown.getvalue()


def test_the_file_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", str(tmp_path / "model.pt")])
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"weights")
    evaluate(tmp_path / "new" / "folder", checkpoint=checkpoint, info={"split": "test"})
    text = (tmp_path / "new" / "folder" / "metrics.json").read_text()
    record = json.loads(text)
    software = record.pop("software")
    assert record == {
        "n": 6,
        "classes": ["Blood", "Muscle", "Fat [white]"],
        "f1_micro": pytest.approx(5 / 6),
        # Blood: precision 2/2, recall 2/3. Muscle: precision 3/4, recall 3/3. Fat has neither, so it does not count.
        "f1_macro": pytest.approx((4 / 5 + 6 / 7) / 2),
        "per_class": {
            "Blood": {
                **{"f1": pytest.approx(4 / 5), "precision": 1.0, "n": 3},
                **{"recall": pytest.approx(2 / 3), "fnr": pytest.approx(1 / 3)},
            },
            "Muscle": {"f1": pytest.approx(6 / 7), "precision": 0.75, "recall": 1.0, "fnr": 0.0, "n": 3},
            "Fat [white]": {"f1": None, "precision": None, "recall": None, "fnr": None, "n": 0},
        },
        "confusion": [[2, 1, 0], [0, 3, 0], [0, 0, 0]],
        "checkpoint": {"name": "model.pt", "sha256": hashlib.sha256(b"weights").hexdigest()},
        "info": {"split": "test"},
    }
    assert {"versions", "commit", "started_utc"} <= set(software)
    assert software["command"] == "evaluate.py --checkpoint …/model.pt"
    assert str(tmp_path) not in text


def test_the_table(tmp_path):
    lines = evaluate(tmp_path, title="test").splitlines()
    assert lines[0].strip() == "test"
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows == [
        ["Blood", "3", "1.000", "0.667", "0.800"],
        ["Muscle", "3", "0.750", "1.000", "0.857"],
        ["Fat [white]", "0", "-", "-", "-"],
        ["micro", "6", "", "", "0.833"],
        ["macro", "6", "", "", "0.829"],
    ]


def test_without_a_checkpoint(tmp_path):
    evaluate(tmp_path)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["checkpoint"] is None
    assert record["info"] == {}


def test_checks(tmp_path):
    with pytest.raises(ConfigError, match="metric must be a ConfusionF1"):
        MetricsWriter(tmp_path, {"f1_macro": ConfusionF1(CLASSES)})
    with pytest.raises(ConfigError, match="info must hold plain values that JSON knows"):
        MetricsWriter(tmp_path, ConfusionF1(CLASSES), info={"split": {"test"}})
