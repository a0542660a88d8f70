# SPDX-License-Identifier: Apache-2.0
"""The result of a tissue classifier's evaluation: ``metrics.json`` and a table on the terminal."""

from __future__ import annotations

import os
from typing import Any

from rich.markup import escape
from rich.table import Table

from tral_monai.errors import ConfigError
from tral_monai.metrics.classification import ClassScores, class_scores
from tral_monai.metrics.ignite_metric import ConfusionF1
from tral_monai.report.result_writer import ResultWriter, number_or_null, shown


class MetricsWriter(ResultWriter):
    """Write ``<output_dir>/metrics.json`` when an evaluation ends, and show its scores as a table.

    The file holds ``n`` (samples), ``classes``, ``f1_micro``, ``f1_macro``, ``per_class`` (precision, recall, F1, FNR
    and n of each class; an undefined 0/0 is null), ``confusion`` (rows truth, columns prediction, in the order of
    ``classes``), and what :class:`~tral_monai.report.result_writer.ResultWriter` adds.

    Args:
        output_dir: where the file goes; made where it does not exist.
        metric: the metric of the evaluator that this handler is attached to.
        **options: see :class:`~tral_monai.report.result_writer.ResultWriter`.

    Raises:
        ConfigError: ``metric`` is no ``ConfusionF1``, or ``info`` cannot be written as JSON.
    """

    def __init__(self, output_dir: str | os.PathLike[str], metric: ConfusionF1, **options: Any) -> None:
        if not isinstance(metric, ConfusionF1):
            raise ConfigError(f"metric must be a ConfusionF1, which keeps the confusion matrix, but is {type(metric)}")
        super().__init__(output_dir, **options)
        self._metric = metric

    def figures(self) -> dict[str, Any]:  # noqa: D102
        scores = class_scores(self._metric.confusion)
        return {
            "n": int(self._metric.confusion.sum()),
            "classes": list(self._metric.classes),
            "f1_micro": number_or_null(scores.f1_micro),
            "f1_macro": number_or_null(scores.f1_macro),
            "per_class": self._per_class(scores),
            "confusion": self._metric.confusion.tolist(),
        }

    def table(self) -> Table:  # noqa: D102
        scores, table = class_scores(self._metric.confusion), Table("class")
        for name in ("tiles", "precision", "recall", "F1"):
            table.add_column(name, justify="right")
        for i, name in enumerate(self._metric.classes):
            values = (scores.precision[i], scores.recall[i], scores.f1[i])
            table.add_row(escape(name), str(scores.positives[i]), *map(shown, values))
        table.add_section()
        total = str(scores.positives.sum())
        table.add_row("micro", total, "", "", shown(scores.f1_micro))
        table.add_row("macro", total, "", "", shown(scores.f1_macro))
        return table

    def _per_class(self, scores: ClassScores) -> dict[str, dict[str, float | int | None]]:
        return {
            name: {
                "f1": number_or_null(scores.f1[i]),
                "precision": number_or_null(scores.precision[i]),
                "recall": number_or_null(scores.recall[i]),
                "fnr": number_or_null(scores.fnr[i]),
                "n": int(scores.positives[i]),
            }
            for i, name in enumerate(self._metric.classes)
        }
