# SPDX-License-Identifier: Apache-2.0
"""The step that measures the round's model on the splits that are not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tral_monai.errors import ConfigError
from tral_monai.metrics.classification import classification_metrics, confusion_matrix
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.predictor import TripletPredictor


class EvaluateHandler:
    """Record F1 and false-negative rates of the round's model.

    Args:
        predictor: runs the model.
        splits: triplet index of each split, such as ``{"val": ..., "test": ...}``; empty ones are left out.
        classes: class names in the network's order.

    Raises:
        ConfigError: a split has a class outside of ``classes``.
    """

    def __init__(self, predictor: TripletPredictor, splits: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> None:
        self._predictor, self._classes = predictor, tuple(classes)
        self._splits = {name: table for name, table in splits.items() if len(table)}
        for name, table in self._splits.items():
            unknown = sorted(set(table["class"]) - set(self._classes))
            if unknown:
                raise ConfigError(
                    f"split '{name}' has the classes {unknown}, which are not among {list(self._classes)}; "
                    "map or drop them with a class map"
                )

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round has trained."""
        engine.add_event_handler(RoundEvents.TRAINED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Evaluate the splits that the ledger does not hold yet."""
        assert engine.model_path is not None, "TrainHandler sets the model; attach it before EvaluateHandler"
        numbers = {name: number for number, name in enumerate(self._classes)}
        for split, table in self._splits.items():
            if engine.ledger.confusion(engine.round, split, self._classes) is not None:
                continue
            predicted = self._predictor.predict(engine.model_path, table).probabilities.argmax(axis=1)
            matrix = confusion_matrix(table["class"].map(numbers).to_numpy(), predicted, len(self._classes))
            metrics = classification_metrics(matrix, self._classes)
            engine.ledger.record_evaluation(engine.round, split, metrics, matrix.tolist(), self._classes)
