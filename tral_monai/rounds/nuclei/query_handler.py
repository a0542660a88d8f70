# SPDX-License-Identifier: Apache-2.0
"""The step that asks: the strategy chooses which fields of view the annotator shall look at next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.open_set import UNKNOWN
from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import QueryRow
from tral_monai.rounds.nuclei.label_handler import field_names
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.nuclei.train_handler import AUXILIARY_FILE
from tral_monai.rounds.nuclei.training_table import count_answers, training_table
from tral_monai.strategies.base import PoolOutputs, Selection, Strategy
from tral_monai.transforms.views import NOISE_LEVELS, View, cald_views

_FROM_TARGET = {"detections", "features", "predicted_losses", "view_detections", "noise_detections"}
_FROM_ANSWERS = {"labelled_class_means", "labelled_unknown", "labelled_counts", "known_reference", "unknown_reference"}
# Columns of Detections that the detector gives on request, by the name of the request; others always come.
_REQUESTS = {
    "features": "features",
    "evidence": "evidence",
    "logits": "logits",
    "proposals_px": "proposals",
    "prototype_distances": "prototype_distances",
}


class FieldQueryHandler:
    """Let a strategy choose the round's query and write it to the ledger.

    Only what the strategy needs is computed: a random choice runs no detector, and each detector that is needed runs
    over the pool once.

    Args:
        strategy: chooses.
        predictor: runs the round's detectors over the pool.
        index: fields of view of the pool.
        classes: known classes in the detector's order.
        budget: fields of view asked for in one round.
        query_fraction: instead, this part of the whole pool (the paper's 15 %), rounded, at least one.
        total_images: fields of view over the whole run, the first ones included; the last query is cut to it.
        total_boxes: boxes over the whole run; nobody knows a field's boxes before they are drawn, so the run ends
            after the query that reaches it, and may have spent more.
        total_minutes: annotator minutes, likewise.
        views: for strategies that compare views of an image (CALD); None takes the usual four.
        noise_levels: for strategies that add noise (LAAL): standard deviations in grey levels.

    Raises:
        ConfigError: not exactly one of ``budget`` and ``query_fraction`` is given, or one is out of range.
    """

    def __init__(
        self,
        strategy: Strategy,
        predictor: FieldPredictor,
        index: pd.DataFrame,
        classes: Sequence[str],
        *,
        budget: int | None = None,
        query_fraction: float | None = None,
        total_images: int | None = None,
        total_boxes: float | None = None,
        total_minutes: float | None = None,
        views: Sequence[View] | None = None,
        noise_levels: Sequence[float] = NOISE_LEVELS,
    ) -> None:
        if (budget is None) == (query_fraction is None):
            raise ConfigError(f"give either budget or query_fraction, not {budget} and {query_fraction}")
        if budget is not None and budget < 1:
            raise ConfigError(f"budget must be 1 field of view or more, but is {budget}")
        if query_fraction is not None and not 0 < query_fraction <= 1:
            raise ConfigError(f"query_fraction must lie in (0, 1], but is {query_fraction}")
        limits = {"images": total_images, "boxes": total_boxes, "minutes": total_minutes}
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ConfigError(f"total_{name} must be above 0, but is {limit}")
        self.strategy, self._predictor, self._classes = strategy, predictor, tuple(classes)
        self._index = index.set_index("id", drop=False).rename_axis(None)
        self._limits = {name: float(limit) for name, limit in limits.items() if limit is not None}
        self._budget = int(budget) if budget is not None else max(1, round((query_fraction or 0) * len(index)))
        self._views = cald_views() if views is None else tuple(views)
        self._noise_levels = tuple(noise_levels)

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
        n, spent = self._affordable(engine)
        if engine.pool.unlabelled.size == 0:
            engine.stop("the pool is empty")
        elif spent is not None:
            engine.stop(spent)
        else:
            selection = self.strategy.select(self.outputs(engine), n, engine.generator("query"))
            self._record(engine, selection)

    def outputs(self, engine: RoundEngine) -> PoolOutputs:
        """What the strategy may know about the open pool in this round."""
        wanted = self.strategy.needs | self.strategy.wants
        ids = engine.pool.unlabelled
        rows = self._index.loc[ids]
        fields: dict[str, Any] = {"class_names": self._classes}
        if wanted & _FROM_TARGET:
            fields.update(self._of_target(engine, rows, wanted))
        if "labelled_features" in wanted:
            labelled = self._index.loc[engine.pool.labelled]
            outputs = self._predictor.predict(_target(engine), labelled, want={"image_features"})
            fields["labelled_features"] = outputs.image_features
        if "auxiliary_detections" in wanted:
            want = self._requests("auxiliary_detections")
            found = self._predictor.predict(engine.round_dir / AUXILIARY_FILE, rows, want=want).detections
            fields["auxiliary_detections"] = _finite_distances(found)
        if wanted & _FROM_ANSWERS:
            fields.update(self._of_answers(engine, wanted))
        return PoolOutputs(
            ids=ids, **{name: value for name, value in fields.items() if name in wanted | {"class_names"}}
        )

    def _of_target(self, engine: RoundEngine, rows: pd.DataFrame, wanted: Collection[str]) -> dict[str, Any]:
        want = self._requests("detections")
        want |= {"image_features"} if "features" in wanted else set()
        want |= {"predicted_losses"} if "predicted_losses" in wanted else set()
        outputs = self._predictor.predict(
            _target(engine),
            rows,
            want=want,
            views=self._views if "view_detections" in wanted else (),
            view_want=self._requests("view_detections"),
            noise_levels=self._noise_levels if "noise_detections" in wanted else (),
            noise_want=self._requests("noise_detections"),
        )
        return {
            "detections": outputs.detections,
            "features": outputs.image_features,
            "predicted_losses": outputs.predicted_losses,
            "view_detections": outputs.views,
            "noise_detections": outputs.noisy,
        }

    def _of_answers(self, engine: RoundEngine, wanted: Collection[str]) -> dict[str, Any]:
        table = training_table(engine.ledger, self._index)
        counts = count_answers(table, self._classes)
        fields: dict[str, Any] = {
            "labelled_counts": counts,
            "labelled_class_means": counts / max(len(table), 1),
            "labelled_unknown": int(count_answers(table, [UNKNOWN])[0]),
        }
        if {"known_reference", "unknown_reference"} & set(wanted):
            features = self._predictor.roi_features(_target(engine), table)
            answers = np.array([name for names in table["classes"] for name in names], dtype=object)
            fields["known_reference"] = features[np.isin(answers, self._classes)]
            fields["unknown_reference"] = features[answers == UNKNOWN]
        return fields

    def _requests(self, field: str) -> set[str]:
        return {_REQUESTS[column] for column in self.strategy.columns.get(field, ()) if column in _REQUESTS}

    def _affordable(self, engine: RoundEngine) -> tuple[int, str | None]:
        labels = engine.ledger.labels()
        spent = {
            "images": float(len(labels)),
            "boxes": float(labels["cost_labels"].sum()),
            "minutes": float(labels["cost_minutes"].sum()),
        }
        for name, limit in self._limits.items():
            if spent[name] >= limit:
                return 0, f"the budget of {limit:g} {name} is spent"
        left = self._limits.get("images", float("inf")) - spent["images"]
        return max(1, int(min(self._budget, left))), None

    def _record(self, engine: RoundEngine, selection: Selection) -> None:
        if selection.stop or not len(selection):
            engine.stop(selection.stop or f"{self.strategy.name} chose nothing")
            return
        rows = self._index.loc[selection.ids]
        query = [
            QueryRow(int(i), place, int(x), int(y), self._classes[c] if c >= 0 else None, float(score), reason)
            for i, place, x, y, c, score, reason in zip(
                selection.ids,
                field_names(rows),
                rows["left_px"],
                rows["top_px"],
                selection.class_asked,
                selection.scores,
                selection.reasons,
                strict=True,
            )
        ]
        engine.ledger.record_query(engine.round, query)
        engine.query = query


def _target(engine: RoundEngine) -> Any:
    assert engine.model_path is not None, "FieldTrainHandler sets the model; attach it before FieldQueryHandler"
    return engine.model_path


def _finite_distances(found: Detections) -> Detections:
    """A prototype that no nucleus has shaped yet is infinitely far; strategies take finite numbers.

    Such a column becomes the largest number there is, so that every nucleus is nearer to the other prototype still.
    """
    distances: npt.NDArray[Any] | None = found.prototype_distances
    if distances is None or not len(distances):
        return found
    finite = np.array(distances, dtype=np.float32)
    finite[:, np.isposinf(finite).all(axis=0)] = np.finfo(np.float32).max
    return replace(found, prototype_distances=finite)
