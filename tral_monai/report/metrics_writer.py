# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation: ``metrics.json`` and a table on the terminal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.metrics.classification import ClassScores, class_scores
from tral_monai.metrics.ignite_metric import ConfusionF1
from tral_monai.provenance import provenance, without_folders

METRICS_FILE = "metrics.json"


class MetricsWriter:
    """Write ``<output_dir>/metrics.json`` when an evaluation ends, and show its scores as a table.

    The file holds ``n`` (samples), ``classes``, ``f1_micro``, ``f1_macro``, ``per_class`` (precision, recall, F1, FNR
    and n of each class; an undefined 0/0 is null), ``confusion`` (rows truth, columns prediction, in the order of
    ``classes``), ``checkpoint`` (file name, SHA-256), ``info``, and ``software`` (versions, commit,
    command without folders, time).

    Args:
        output_dir: where the file goes; made where it does not exist.
        metric: the metric of the evaluator that this handler is attached to.
        checkpoint: file of the weights that are evaluated; its name and hash are recorded, not its folder.
        info: JSON values to record besides, such as the split.
        title: above the table.
        console: where the table goes; standard output by default.

    Raises:
        ConfigError: ``metric`` is no ``ConfusionF1``, or ``info`` cannot be written as JSON.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        metric: ConfusionF1,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        info: Mapping[str, Any] | None = None,
        title: str | None = None,
        console: Console | None = None,
    ) -> None:
        if not isinstance(metric, ConfusionF1):
            raise ConfigError(f"metric must be a ConfusionF1, which keeps the confusion matrix, but is {type(metric)}")
        self._info = dict(info or {})
        try:
            json.dumps(self._info)
        except TypeError as error:
            raise ConfigError(f"info must hold plain values that JSON knows, but {error}") from error
        self._output_dir, self._metric, self._title = Path(output_dir), metric, title
        self._checkpoint = Path(checkpoint) if checkpoint is not None else None
        self._console = console or Console(highlight=False)

    def attach(self, engine: Engine) -> None:
        """Act when the evaluation is complete."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file, then show the table."""
        confusion = self._metric.confusion
        scores = class_scores(confusion)
        record = {
            "n": int(confusion.sum()),
            "classes": list(self._metric.classes),
            "f1_micro": _number(scores.f1_micro),
            "f1_macro": _number(scores.f1_macro),
            "per_class": self._per_class(scores),
            "confusion": confusion.tolist(),
            "checkpoint": self._checkpoint_record(),
            "info": self._info,
            "software": without_folders(provenance()),
        }
        self._output_dir.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._output_dir / METRICS_FILE) as path:
            path.write_text(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
        self._console.print(self._table(scores))

    def _per_class(self, scores: ClassScores) -> dict[str, dict[str, float | int | None]]:
        return {
            name: {
                "f1": _number(scores.f1[i]),
                "precision": _number(scores.precision[i]),
                "recall": _number(scores.recall[i]),
                "fnr": _number(scores.fnr[i]),
                "n": int(scores.positives[i]),
            }
            for i, name in enumerate(self._metric.classes)
        }

    def _checkpoint_record(self) -> dict[str, str] | None:
        if self._checkpoint is None:
            return None
        return {"name": self._checkpoint.name, "sha256": file_sha256(self._checkpoint)}

    def _table(self, scores: ClassScores) -> Table:
        table = Table("class", title=self._title, title_justify="left")
        for name in ("tiles", "precision", "recall", "F1"):
            table.add_column(name, justify="right")
        for i, name in enumerate(self._metric.classes):
            values = (scores.precision[i], scores.recall[i], scores.f1[i])
            table.add_row(escape(name), str(scores.positives[i]), *map(_shown, values))
        table.add_section()
        total = str(scores.positives.sum())
        table.add_row("micro", total, "", "", _shown(scores.f1_micro))
        table.add_row("macro", total, "", "", _shown(scores.f1_macro))
        return table


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
