# SPDX-License-Identifier: Apache-2.0
"""How good a model is on a site's held-out regions."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tral_monai.rounds.regions.settings import Task
from tral_monai.rounds.regions.site import TaskSite

KEY_METRIC: dict[Task, str] = {"tissue": "f1_macro", "nuclei": "map50"}
"""The metric that decides whether a model is published."""


class Evaluation(NamedTuple):
    """Metrics by name, and the confusion matrix (rows: truth) of a classifier; a detector has none."""

    metrics: dict[str, float]
    confusion: list[list[int]]

    def key(self, task: Task) -> float:
        """The deciding metric; NaN where it is undefined."""
        return self.metrics.get(KEY_METRIC[task], float("nan"))


def evaluate(task: TaskSite, model: Path, samples: pd.DataFrame) -> Evaluation:
    """Run a model over held-out samples and score it.

    Args:
        task: the task's site.
        model: the checkpoint; its classes are the site's.
        samples: labelled tiles, or fields of view with answers.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        SlideError: a slide cannot be read.
    """
    classes = task.classes
    if task.name == "tissue":
        from tral_monai.metrics.classification import classification_metrics, confusion_matrix
        from tral_monai.rounds.predictor import TripletPredictor

        predictor = TripletPredictor(device=task.device, feature_dir=task.folder / "features")
        predicted = predictor.predict(model, samples).probabilities.argmax(axis=1)
        truth = samples["class"].map({name: number for number, name in enumerate(classes)}).to_numpy()
        matrix = confusion_matrix(truth, predicted, len(classes))
        return Evaluation(classification_metrics(matrix, classes), matrix.tolist())
    from tral_monai.data.nuclei.open_set import OpenSet
    from tral_monai.metrics.detection import detection_metrics, truth_of
    from tral_monai.rounds.nuclei.predictor import FieldPredictor

    found = FieldPredictor(device=task.device).predict(model, samples).detections
    return Evaluation(detection_metrics(found, *truth_of(samples, OpenSet(classes)), classes), [])
