# SPDX-License-Identifier: Apache-2.0
"""The result of a detector's evaluation: ``metrics.json`` and a table on the terminal."""

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
from tral_monai.data.nuclei.open_set import UNKNOWN
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.metrics.ignite_detection import DetectionAp
from tral_monai.provenance import provenance, without_folders
from tral_monai.report.metrics_writer import METRICS_FILE


class DetectionMetricsWriter:
    """Write ``<output_dir>/metrics.json`` when an evaluation ends, and show its figures as a table.

    The file holds ``classes``, ``nuclei`` (how many of each class the truth has), ``figures`` (see
    :func:`tral_monai.metrics.detection.detection_metrics`; an undefined one is null), ``operating_score``,
    ``checkpoint`` (file name, SHA-256), ``info``, and ``software`` (versions, commit, command without folders, time).

    Args:
        output_dir: where the file goes; made where it does not exist.
        metric: the metric of the evaluator that this handler is attached to.
        checkpoint: file of the weights that are evaluated; its name and hash are recorded, not its folder.
        info: JSON values to record besides, such as the fold.
        title: above the table.
        console: where the table goes; standard output by default.

    Raises:
        ConfigError: ``metric`` is no ``DetectionAp``, or ``info`` cannot be written as JSON.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        metric: DetectionAp,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        info: Mapping[str, Any] | None = None,
        title: str | None = None,
        console: Console | None = None,
    ) -> None:
        if not isinstance(metric, DetectionAp):
            raise ConfigError(f"metric must be a DetectionAp, which keeps the figures, but is {type(metric)}")
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
        figures = self._metric.details
        record = {
            "classes": list(self._metric.classes),
            "nuclei": self._metric.counts,
            "figures": {name: None if math.isnan(value) else value for name, value in figures.items()},
            "operating_score": self._metric.operating_score,
            "checkpoint": self._checkpoint_record(),
            "info": self._info,
            "software": without_folders(provenance()),
        }
        self._output_dir.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._output_dir / METRICS_FILE) as path:
            path.write_text(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
        self._console.print(self._table())

    def _checkpoint_record(self) -> dict[str, str] | None:
        if self._checkpoint is None:
            return None
        return {"name": self._checkpoint.name, "sha256": file_sha256(self._checkpoint)}

    def _table(self) -> Table:
        figures, score = self._metric.details, f"{self._metric.operating_score:g}"
        table = Table("class", title=self._title, title_justify="left")
        for name in ("nuclei", "AP50", f"F1 at score {score}"):
            table.add_column(name, justify="right")
        for name in self._metric.classes:
            found = figures[f"{name}_ap50"], figures[f"{name}_f1"]
            table.add_row(escape(name), str(self._metric.counts[name]), *map(_shown, found))
        table.add_section()
        known = sum(self._metric.counts[name] for name in self._metric.classes)
        table.add_row("mean", str(known), _shown(figures["map50"]), "")
        table.add_row("any known class", str(known), _shown(figures["ap50_class_agnostic"]), _shown(figures["f1"]))
        table.add_section()
        table.add_row(
            "on unknown nuclei", str(self._metric.counts[UNKNOWN]), f"{figures['fp_on_unknown']:.0f} found", ""
        )
        return table


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
