# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's scoring: what the current round says of each slide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from tral_monai.atomic_file import atomic_path
from tral_monai.rounds.regions.round_state import POOL_FILE
from tral_monai.rounds.regions.site import TaskSite

SCORES_FILE = "scores.json"


class RegionScoring(ScoringMethod):
    """Sums up, by slide, the regions of the current round and what the model says of all regions it looked at.

    The result is kept as ``scores.json`` in the task's folder. It is not written into MONAI Label's image info, which
    several processes rewrite as a whole and so lose each other's updates.

    Args:
        task: the task's site.
    """

    def __init__(self, task: TaskSite) -> None:
        super().__init__(f"Regions asked for, scores and predicted classes of every slide ({task.name})")
        self._task = task

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Sum up the current round.

        Args:
            request: not used.
            datastore: not used.

        Returns:
            ``round``, and for each slide under ``slides``: ``open`` and ``answered`` regions of the round's query,
            ``candidates`` that were scored, ``score_mean`` and ``score_max`` (None without a score), and
            ``predicted``, the part of the candidates that each class has.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._task.ledger() as ledger:
            round_, asked = ledger.round, ledger.asked(ledger.round)
        file = self._task.round_dir(round_) / POOL_FILE
        pool = pd.read_parquet(file) if file.is_file() else pd.DataFrame({"slide": []})
        of_slide = {str(name): rows for name, rows in pool.groupby("slide")}
        names = sorted({*of_slide, *(one.region.slide for one in asked)})
        answered = [(one.region.slide, one.answered) for one in asked]
        slides = {
            name: {
                "open": answered.count((name, False)),
                "answered": answered.count((name, True)),
                **_of_candidates(of_slide.get(name, pool.iloc[:0])),
            }
            for name in names
        }
        result = {"round": round_, "slides": slides}
        with atomic_path(self._task.folder / SCORES_FILE) as temporary:
            temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
        return result


def _of_candidates(rows: pd.DataFrame) -> dict[str, Any]:
    scores = rows["score"].to_numpy(np.float64) if "score" in rows else np.empty(0)
    scores = scores[np.isfinite(scores)]
    classes = rows["class_predicted"].dropna() if "class_predicted" in rows else pd.Series(dtype=str)
    mix = classes[classes != ""].value_counts(normalize=True)
    return {
        "candidates": len(rows),
        "score_mean": round(float(scores.mean()), 4) if len(scores) else None,
        "score_max": round(float(scores.max()), 4) if len(scores) else None,
        "predicted": {str(name): round(float(part), 4) for name, part in mix.items()},
    }
