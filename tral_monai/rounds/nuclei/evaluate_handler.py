# SPDX-License-Identifier: Apache-2.0
"""The step that measures the round's detector on the parts that are not trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pandas as pd

from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.metrics.detection import classes_without_nuclei, detection_metrics, truth_of
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.nuclei.predictor import FieldPredictor

logger = logging.getLogger(__name__)


class FieldEvaluateHandler:
    """Record average precision and detections on unknown nuclei of the round's target detector.

    Args:
        predictor: runs the detector.
        splits: fields of view with true classes by part, such as ``{"test": ..., "val": ...}``; empty ones are left
            out. A known class without a nucleus in one is told by name: its AP is undefined, and the mean leaves it
            out.
        open_set: which classes are known.
        operating_score: score from which precision, recall and detections on unknown nuclei count.
        without: rare known classes; the mean AP without each of them is recorded too.

    Raises:
        UnknownClassError: a class of a table is neither known nor unknown.
    """

    def __init__(
        self,
        predictor: FieldPredictor,
        splits: Mapping[str, pd.DataFrame],
        open_set: OpenSet,
        *,
        operating_score: float = 0.5,
        without: Sequence[str] = (),
    ) -> None:
        self._predictor, self._classes = predictor, open_set.known
        self._operating_score, self._without = operating_score, tuple(without)
        self._splits = {name: (table, *truth_of(table, open_set)) for name, table in splits.items() if len(table)}
        for name, (_, _, labels) in self._splits.items():
            for absent in classes_without_nuclei(labels, self._classes):
                logger.warning("split '%s' has no nucleus of class '%s': its AP is undefined", name, absent)

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round has trained."""
        engine.add_event_handler(RoundEvents.TRAINED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Evaluate the splits that the ledger does not hold yet."""
        assert engine.model_path is not None, "FieldTrainHandler sets the model; attach it before FieldEvaluateHandler"
        for split, (table, boxes, labels) in self._splits.items():
            if engine.ledger.metrics(engine.round, split):
                continue
            found = self._predictor.predict(engine.model_path, table).detections
            metrics = detection_metrics(
                found,
                boxes,
                labels,
                self._classes,
                operating_score=self._operating_score,
                without=self._without,
            )
            engine.ledger.record_evaluation(engine.round, split, metrics)
