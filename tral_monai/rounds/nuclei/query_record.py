# SPDX-License-Identifier: Apache-2.0
"""What the report shows of a query: the detections in the fields asked for, and where nuclei lie to the prototypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.atomic_file import atomic_path
from tral_monai.data.nuclei.open_set import IGNORED
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.nuclei.train_handler import AUXILIARY_FILE
from tral_monai.rounds.nuclei.training_table import training_table

PREDICTIONS_FILE = "query_predictions.parquet"
FEATURES_FILE = "roi_features.npz"


class QueryRecordHandler:
    """Keep, in the round's folder, what its detectors say of the fields asked for and of the nuclei answered so far.

    ``query_predictions.parquet`` has the target's boxes in the queried fields (``sample_id, xmin, ymin, xmax, ymax,
    label, score``; label is a class name). Where the round has an auxiliary detector with prototypes,
    ``roi_features.npz`` has the embeddings of nuclei that it was trained on (``features``), their answers (``answer``)
    and both prototypes (``prototypes``, known first). Both serve the report alone.

    Args:
        predictor: runs the round's detectors.
        index: fields of view of the pool.
        classes: known classes in the detector's order.
        max_fields: embeddings are taken from so many of the annotated fields, spread evenly over them.
    """

    def __init__(
        self, predictor: FieldPredictor, index: pd.DataFrame, classes: tuple[str, ...], *, max_fields: int = 40
    ) -> None:
        self._predictor, self._classes, self._max_fields = predictor, tuple(classes), int(max_fields)
        self._index = index.set_index("id", drop=False).rename_axis(None)

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round has asked."""
        engine.add_event_handler(RoundEvents.QUERIED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Write what is not there yet."""
        engine.round_dir.mkdir(parents=True, exist_ok=True)
        path = engine.round_dir / PREDICTIONS_FILE
        if not path.is_file():
            table = self._predictions(engine)
            with atomic_path(path) as temporary:
                table.to_parquet(temporary, index=False)
        path = engine.round_dir / FEATURES_FILE
        record = engine.ledger.auxiliary_model(engine.round, "prototype")
        if record is not None and not path.is_file():
            features = self._features(engine)
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **features)

    def _predictions(self, engine: RoundEngine) -> pd.DataFrame:
        assert engine.model_path is not None, "FieldTrainHandler sets the model; attach it too"
        ids = np.array([row.sample_id for row in engine.query], dtype=np.int64)
        found = self._predictor.predict(engine.model_path, self._index.loc[ids]).detections
        boxes = pd.DataFrame(np.asarray(found.boxes_px, dtype=np.float32), columns=["xmin", "ymin", "xmax", "ymax"])
        boxes.insert(0, "sample_id", ids[found.image_of_box])
        boxes["label"] = np.array(self._classes, dtype=object)[found.labels]
        boxes["score"] = np.asarray(found.scores, dtype=np.float32)
        return boxes

    def _features(self, engine: RoundEngine) -> dict[str, npt.NDArray[Any]]:
        table = training_table(engine.ledger, self._index.reset_index(drop=True), before_round=engine.round)
        kept = np.unique(np.linspace(0, len(table) - 1, min(len(table), self._max_fields)).round().astype(np.int64))
        rows = table.iloc[kept]
        answers = np.array([name for names in rows["classes"] for name in names], dtype=object)
        features, prototypes = self._predictor.embeddings(engine.round_dir / AUXILIARY_FILE, rows)
        told = answers != IGNORED
        return {"features": features[told], "answer": answers[told].astype(str), "prototypes": prototypes}
