# SPDX-License-Identifier: Apache-2.0
"""The step that asks: the strategy chooses which fields of view the annotator shall look at next."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import QueryRow
from tral_monai.rounds.nuclei.field_outputs import FieldOutputsMaker
from tral_monai.rounds.nuclei.label_handler import field_names
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.nuclei.train_handler import AUXILIARY_FILE
from tral_monai.rounds.nuclei.training_table import training_table
from tral_monai.strategies.base import PoolOutputs, Selection, Strategy
from tral_monai.transforms.views import NOISE_LEVELS, View


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
        self.strategy, self._classes = strategy, tuple(classes)
        self._index = index.set_index("id", drop=False).rename_axis(None)
        self._limits = {name: float(limit) for name, limit in limits.items() if limit is not None}
        self._budget = int(budget) if budget is not None else max(1, round((query_fraction or 0) * len(index)))
        self._outputs = FieldOutputsMaker(strategy, predictor, classes, views=views, noise_levels=noise_levels)

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
        return self._outputs.make(
            self._index.loc[engine.pool.unlabelled],
            target=engine.model_path,
            auxiliary=engine.round_dir / AUXILIARY_FILE,
            labelled=lambda: self._index.loc[engine.pool.labelled],
            answered=lambda: training_table(engine.ledger, self._index),
        )

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
