# SPDX-License-Identifier: Apache-2.0
"""Where a report's figures come from, out of the run's ledger: settings, versions, models with hashes, timings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tral_monai.provenance import without_folders
from tral_monai.report.run_data import RunData

# Shown elsewhere on the page, or too long for a table cell.
_OWN_PLACE = {"config", "versions", "classes", "class_colors", "class_pool_sizes", "full_counts", "identity"}


@dataclass(frozen=True)
class ModelRow:
    """One trained model: round, file name, SHA-256, training time in seconds, epochs and validation loss (or None)."""

    round: int
    file: str
    sha256: str
    seconds: float
    epochs: int
    val_loss: float | None


@dataclass(frozen=True)
class StageRow:
    """Last time of each stage of a round, and the minutes from its first to its last."""

    round: int
    stages: tuple[tuple[str, str], ...]
    minutes: float


@dataclass(frozen=True)
class Provenance:
    """All that is needed to repeat the run, folders of the machine left out."""

    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    config: str
    models: tuple[ModelRow, ...]
    stages: tuple[StageRow, ...]


def provenance(run: RunData) -> Provenance:
    """Collect the provenance of a run from its ledger."""
    settings = tuple(
        (key, _text(without_folders(value))) for key, value in sorted(run.settings.items()) if key not in _OWN_PLACE
    )
    versions = run.settings.get("versions")
    config = run.settings.get("config")
    if config is not None and not isinstance(config, str):
        config = json.dumps(without_folders(config), indent=2, sort_keys=True, ensure_ascii=False)
    return Provenance(
        settings=settings,
        versions=tuple((str(k), str(v)) for k, v in sorted(versions.items())) if isinstance(versions, dict) else (),
        config=without_folders(config or ""),
        models=tuple(model_row(row) for row in run.tables["models"].sort_values("round").itertuples(index=False)),
        stages=_stages(run.tables["events"]),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def model_row(row: Any) -> ModelRow:
    """One row of the ledger's models as it is shown; of its path only the file name."""
    return ModelRow(
        round=int(row.round),
        file=str(row.path).replace("\\", "/").rsplit("/", 1)[-1],
        sha256=str(row.sha256),
        seconds=float(row.seconds),
        epochs=int(row.epochs),
        val_loss=None if pd.isna(row.val_loss) else float(row.val_loss),
    )


def _stages(events: pd.DataFrame) -> tuple[StageRow, ...]:
    rows = []
    for round_ in sorted(int(value) for value in events["round"].unique()):
        own = events[events["round"] == round_].sort_values("at_utc", kind="stable")
        times = pd.to_datetime(own["at_utc"], utc=True, format="ISO8601")
        minutes = float((times.max() - times.min()).total_seconds()) / 60.0
        stages = tuple((str(stage), str(at)) for stage, at in zip(own["stage"], own["at_utc"], strict=True))
        rows.append(StageRow(round_, stages, minutes))
    return tuple(rows)
