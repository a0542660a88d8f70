# SPDX-License-Identifier: Apache-2.0
"""The step that asks: the strategy chooses from the pool what the oracle shall label next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import Ledger, QueryRow
from tral_monai.rounds.oracles import Oracle
from tral_monai.rounds.predictor import TripletPredictor
from tral_monai.strategies.base import PoolOutputs, Selection, Strategy

_FROM_MODEL = {"probabilities", "features", "labelled_features"}


class QueryHandler:
    """Let a strategy choose the round's query and write it to the ledger.

    Only what the strategy needs is computed: a class request runs no model over the pool.

    Args:
        strategy: chooses.
        budget: labels asked for in one round (the paper's S).
        predictor: runs the round's model over the pool.
        oracle: tells which class pools there are.
        index: triplet index of the pool.
        classes: class names in the network's order.
        total_budget: labels over the whole run, the first ones included; None sets no limit.

    Raises:
        ConfigError: a budget is below 1.
    """

    def __init__(
        self,
        strategy: Strategy,
        budget: int,
        predictor: TripletPredictor,
        oracle: Oracle,
        index: pd.DataFrame,
        classes: Sequence[str],
        *,
        total_budget: int | None = None,
    ) -> None:
        if budget < 1 or (total_budget is not None and total_budget < 1):
            raise ConfigError(f"a budget must be 1 label or more, but is {budget} a round, {total_budget} in all")
        self.strategy, self._budget, self._total_budget = strategy, int(budget), total_budget
        self._predictor, self._oracle, self._classes = predictor, oracle, tuple(classes)
        self._index = index.set_index("id", drop=False).rename_axis(None)

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round is evaluated."""
        engine.add_event_handler(RoundEvents.EVALUATED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Choose, or take the query that the ledger holds; ask nothing in the last round."""
        if engine.is_last_round:
            return
        engine.query = engine.ledger.query(engine.round)
        if engine.query:
            return
        n = self._affordable(engine)
        if engine.pool.unlabelled.size == 0:
            engine.stop("the pool is empty")
        elif n == 0:
            engine.stop(f"the budget of {self._total_budget} labels is spent")
        else:
            selection = self.strategy.select(self.outputs(engine), n, engine.generator("query"))
            self._record(engine, selection)

    def outputs(self, engine: RoundEngine) -> PoolOutputs:
        """What the strategy may know about the open pool in this round."""
        wanted = self.strategy.needs | self.strategy.wants
        ids = engine.pool.unlabelled
        fields: dict[str, Any] = {"class_names": self._classes}
        probabilities: npt.NDArray[np.float64] | None = None
        if wanted & _FROM_MODEL or ("pool_classes" in wanted and self._oracle.needs_probabilities):
            assert engine.model_path is not None, "TrainHandler sets the model; attach it before QueryHandler"
            predictions = self._predictor.predict(engine.model_path, self._index.loc[ids])
            probabilities = predictions.probabilities.astype(np.float64)
            fields.update(probabilities=probabilities, features=predictions.features)
            if "labelled_features" in wanted:
                labelled = self._index.loc[engine.pool.labelled]
                fields["labelled_features"] = self._predictor.predict(engine.model_path, labelled).features
        if "pool_classes" in wanted:
            fields["pool_classes"] = self._oracle.pool_classes(ids, probabilities)
        if wanted & {"false_negatives", "positives"}:
            fields.update(validation_counts(engine.ledger, engine.round, self._classes))
        if "labelled_counts" in wanted:
            fields["labelled_counts"] = _counts(engine.ledger.labels()["class_given"], self._classes)
        if "class_distribution" in wanted:
            fields["class_distribution"] = _counts(self._index["class"], self._classes)
        return PoolOutputs(ids=ids, **fields)

    def _affordable(self, engine: RoundEngine) -> int:
        if self._total_budget is None:
            return self._budget
        spent = float(engine.ledger.labels()["cost_labels"].sum())
        return max(0, min(self._budget, int(self._total_budget - spent)))

    def _record(self, engine: RoundEngine, selection: Selection) -> None:
        if selection.stop or not len(selection):
            engine.stop(selection.stop or f"{self.strategy.name} chose nothing")
            return
        rows = self._index.loc[selection.ids]
        query = [
            QueryRow(int(i), slide, int(x), int(y), self._classes[c] if c >= 0 else None, float(score), reason)
            for i, slide, x, y, c, score, reason in zip(
                selection.ids,
                rows["slide"],
                rows["x_level0"],
                rows["y_level0"],
                selection.class_asked,
                selection.scores,
                selection.reasons,
                strict=True,
            )
        ]
        engine.ledger.record_query(engine.round, query)
        engine.query = query


def validation_counts(
    ledger: Ledger, round_: int, classes: Sequence[str], *, split: str = "val"
) -> dict[str, npt.NDArray[np.float64]]:
    """``false_negatives`` and ``positives`` (C,) of a round's evaluation on a validation split.

    Raises:
        ConfigError: the round was not evaluated on it.
    """
    matrix = ledger.confusion(round_, split, classes)
    if matrix is None:
        raise ConfigError(f"round {round_} has no evaluation on split '{split}', from which class quotas come")
    counts = np.asarray(matrix, dtype=np.float64)
    return {"false_negatives": counts.sum(axis=1) - counts.diagonal(), "positives": counts.sum(axis=1)}


def _counts(names: pd.Series[str], classes: Sequence[str]) -> npt.NDArray[np.float64]:
    counts = names.value_counts()
    return np.array([counts.get(name, 0) for name in classes], dtype=np.float64)
