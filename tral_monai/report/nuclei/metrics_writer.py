# SPDX-License-Identifier: Apache-2.0
"""The result of a detector's evaluation: ``metrics.json`` and a table on the terminal."""

from __future__ import annotations

import os
from typing import Any

from rich.markup import escape
from rich.table import Table

from tral_monai.data.nuclei.open_set import UNKNOWN
from tral_monai.errors import ConfigError
from tral_monai.metrics.ignite_detection import DetectionAp
from tral_monai.report.result_writer import ResultWriter, number_or_null, shown


class DetectionMetricsWriter(ResultWriter):
    """Write ``<output_dir>/metrics.json`` when an evaluation ends, and show its figures as a table.

    The file holds ``classes``, ``nuclei`` (how many of each class the truth has), ``figures`` (see
    :func:`tral_monai.metrics.detection.detection_metrics`; an undefined one is null), ``operating_score``, and what
    :class:`~tral_monai.report.result_writer.ResultWriter` adds.

    Args:
        output_dir: where the file goes; made where it does not exist.
        metric: the metric of the evaluator that this handler is attached to.
        **options: see :class:`~tral_monai.report.result_writer.ResultWriter`.

    Raises:
        ConfigError: ``metric`` is no ``DetectionAp``, or ``info`` cannot be written as JSON.
    """

    def __init__(self, output_dir: str | os.PathLike[str], metric: DetectionAp, **options: Any) -> None:
        if not isinstance(metric, DetectionAp):
            raise ConfigError(f"metric must be a DetectionAp, which keeps the figures, but is {type(metric)}")
        super().__init__(output_dir, **options)
        self._metric = metric

    def figures(self) -> dict[str, Any]:  # noqa: D102
        return {
            "classes": list(self._metric.classes),
            "nuclei": self._metric.counts,
            "figures": {name: number_or_null(value) for name, value in self._metric.details.items()},
            "operating_score": self._metric.operating_score,
        }

    def table(self) -> Table:  # noqa: D102
        figures, counts = self._metric.details, self._metric.counts
        table = Table("class")
        for name in ("nuclei", "AP50", f"F1 at score {self._metric.operating_score:g}"):
            table.add_column(name, justify="right")
        for name in self._metric.classes:
            table.add_row(escape(name), str(counts[name]), shown(figures[f"{name}_ap50"]), shown(figures[f"{name}_f1"]))
        table.add_section()
        known = str(sum(counts[name] for name in self._metric.classes))
        table.add_row("mean", known, shown(figures["map50"]), "")
        table.add_row("any known class", known, shown(figures["ap50_class_agnostic"]), shown(figures["f1"]))
        table.add_section()
        table.add_row("on unknown nuclei", str(counts[UNKNOWN]), f"{figures['fp_on_unknown']:.0f} found", "")
        return table
