# SPDX-License-Identifier: Apache-2.0
"""Where a task stands, from its ledger alone: what a server tells at every look, without loading a network."""

from __future__ import annotations

import math
from typing import Any

from tral_monai.rounds.regions.evaluation import KEY_METRIC
from tral_monai.rounds.regions.site import TaskSite


def train_stats(task: TaskSite) -> dict[str, Any]:
    """Rounds, answers, and scores of a task, as JSON values.

    Returns:
        ``round`` (of the newest training, 0 before it), ``published_round``, ``regions_answered``, ``regions_open``
        (asked for in this round and not answered), ``main_class_of_regions``, ``labels`` (tiles or nuclei by class
        that the newest training learnt from), ``minutes`` of annotation, ``val`` (scores of the newest training,
        undefined ones None), ``best_metric`` (the deciding score of the published model, as 3D Slicer shows it), and
        ``note``, why that training was published or not.
    """
    with task.ledger() as ledger:
        round_, info, labels = ledger.round, ledger.info(), ledger.labels()
        asked = ledger.asked(round_)
        metrics = ledger.metrics(round_, "val") if round_ else {}
        published = int(info.get("published_round", 0))
        best = ledger.metrics(published, "val").get(KEY_METRIC[task.name], math.nan) if published else math.nan
    return {
        "round": round_,
        "published_round": published,
        "regions_answered": len(labels),
        "regions_open": sum(not one.answered for one in asked),
        "main_class_of_regions": {str(k): int(v) for k, v in labels["class_given"].value_counts().items()},
        "labels": info.get("labels", {}),
        "minutes": round(float(labels["cost_minutes"].sum()), 2),
        "val": finite(metrics),
        "best_metric": None if math.isnan(best) else round(best, 4),
        "note": info.get("training_note", "nothing is trained yet"),
    }


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them: undefined ones are None."""
    return {name: None if math.isnan(value) else round(value, 4) for name, value in metrics.items()}
