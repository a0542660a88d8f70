# SPDX-License-Identifier: Apache-2.0
"""What a strategy may know about fields of view: what detectors find there, and what was answered so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.open_set import UNKNOWN
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.nuclei.training_table import count_answers
from tral_monai.strategies.base import PoolOutputs, Strategy
from tral_monai.transforms.views import NOISE_LEVELS, View, cald_views

FROM_TARGET = frozenset({"detections", "features", "predicted_losses", "view_detections", "noise_detections"})
"""Fields of ``PoolOutputs`` that the target detector brings for the pool."""
FROM_ANSWERS = frozenset(
    {"labelled_class_means", "labelled_unknown", "labelled_counts", "known_reference", "unknown_reference"}
)
"""Those that the answers bring."""
# Columns of Detections that the detector gives on request, by the name of the request; others always come.
_REQUESTS = {
    "features": "features",
    "evidence": "evidence",
    "logits": "logits",
    "proposals_px": "proposals",
    "prototype_distances": "prototype_distances",
}


class FieldOutputsMaker:
    """Runs the detectors that a strategy needs, and no others, each once over the pool.

    Args:
        strategy: what the outputs are for.
        predictor: runs detectors.
        classes: known classes in the detector's order.
        views: for strategies that compare views of an image (CALD); None takes the usual four.
        noise_levels: for strategies that add noise (LAAL): standard deviations in grey levels.
    """

    def __init__(
        self,
        strategy: Strategy,
        predictor: FieldPredictor,
        classes: Sequence[str],
        *,
        views: Sequence[View] | None = None,
        noise_levels: Sequence[float] = NOISE_LEVELS,
    ) -> None:
        self._strategy, self._predictor, self._classes = strategy, predictor, tuple(classes)
        self._views = cald_views() if views is None else tuple(views)
        self._noise_levels = tuple(noise_levels)
        self._wanted = frozenset(strategy.needs | strategy.wants)

    def make(
        self,
        rows: pd.DataFrame,
        *,
        target: Path | None,
        auxiliary: Path | None,
        labelled: Callable[[], pd.DataFrame],
        answered: Callable[[], pd.DataFrame],
    ) -> PoolOutputs:
        """The outputs for the fields of view of a pool.

        Args:
            rows: the pool, n fields of view; their ``id`` become ``PoolOutputs.ids``.
            target: the target detector; may be None for strategies that do not ask it.
            auxiliary: the auxiliary detector, likewise.
            labelled: gives the fields whose features stand for what is labelled.
            answered: gives the answered fields with their boxes and answers.

        Raises:
            ConfigError: the target detector cannot give what the strategy needs.
        """
        wanted = self._wanted
        fields: dict[str, Any] = {"class_names": self._classes}
        if wanted & FROM_TARGET:
            fields.update(self._of_target(_given(target), rows))
        if "labelled_features" in wanted:
            outputs = self._predictor.predict(_given(target), labelled(), want={"image_features"})
            fields["labelled_features"] = outputs.image_features
        if "auxiliary_detections" in wanted:
            want = self._requests("auxiliary_detections")
            found = self._predictor.predict(_given(auxiliary), rows, want=want).detections
            fields["auxiliary_detections"] = _finite_distances(found)
        if wanted & FROM_ANSWERS:
            fields.update(self._of_answers(answered(), target))
        return PoolOutputs(
            ids=rows["id"].to_numpy(np.int64),
            **{name: value for name, value in fields.items() if name in wanted | {"class_names"}},
        )

    def _of_target(self, target: Path, rows: pd.DataFrame) -> dict[str, Any]:
        wanted = self._wanted
        want = self._requests("detections")
        want |= {"image_features"} if "features" in wanted else set()
        want |= {"predicted_losses"} if "predicted_losses" in wanted else set()
        outputs = self._predictor.predict(
            target,
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

    def _of_answers(self, table: pd.DataFrame, target: Path | None) -> dict[str, Any]:
        counts = count_answers(table, self._classes)
        fields: dict[str, Any] = {
            "labelled_counts": counts,
            "labelled_class_means": counts / max(len(table), 1),
            "labelled_unknown": int(count_answers(table, [UNKNOWN])[0]),
        }
        if {"known_reference", "unknown_reference"} & self._wanted:
            features = self._predictor.roi_features(_given(target), table)
            answers = np.array([name for names in table["classes"] for name in names], dtype=object)
            fields["known_reference"] = features[np.isin(answers, self._classes)]
            fields["unknown_reference"] = features[answers == UNKNOWN]
        return fields

    def _requests(self, field: str) -> set[str]:
        columns: Collection[str] = self._strategy.columns.get(field, ())
        return {_REQUESTS[column] for column in columns if column in _REQUESTS}


def _given(detector: Path | None) -> Path:
    assert detector is not None, "a strategy that runs a detector must be given one"
    return detector


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
