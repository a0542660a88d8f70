# SPDX-License-Identifier: Apache-2.0
"""Average precision inside an Ignite or MONAI engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers.utils import from_engine

from tral_monai.data.nuclei.detections import Detections, concatenate
from tral_monai.data.nuclei.open_set import UNKNOWN, OpenSet
from tral_monai.errors import ConfigError
from tral_monai.metrics.detection import UNKNOWN_LABEL, detection_metrics, truth_of


class DetectionAp(Metric):
    """Mean average precision over the fields of view of a table, summed over batches and processes.

    As `key_val_metric` of `monai.engines.SupervisedEvaluator(decollate=False)` it gives the mean over the known
    classes; `engine.state.metrics` also holds all other metrics of `detection_metrics`. With its default
    `output_transform` it reads the engine's output entries `pred`, the `Detections` of a batch, and `label`, a mapping
    with the `id` of each of its fields of view.

    Args:
        table: Fields of view with class names, or with the answers of an annotator.
        open_set: Which classes are known.
        operating_score: Score from which precision, recall, F1 and detections on unknown nuclei are counted.
        output_transform: Engine output -> (pred, label).
        device: Of no meaning here; Ignite asks for one.

    Attributes:
        details: All metrics by name; there after `compute`.
        counts: Nuclei of the table by known class, and under "unknown".

    Raises:
        UnknownClassError: A class of the table is neither known nor unknown.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        open_set: OpenSet,
        *,
        operating_score: float = 0.5,
        output_transform: Callable[[Any], Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.classes = open_set.known
        boxes, labels = truth_of(table, open_set)
        self._truth = {int(number): pair for number, *pair in zip(table["id"], boxes, labels, strict=True)}
        self.operating_score = float(operating_score)
        flat = np.concatenate([np.empty(0, dtype=np.int64), *labels])
        self.counts = {name: int((flat == k).sum()) for k, name in enumerate(self.classes)}
        self.counts[UNKNOWN] = int((flat == UNKNOWN_LABEL).sum())
        self.details: dict[str, float] = {}
        super().__init__(output_transform=output_transform or from_engine(["pred", "label"]), device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all batches."""
        self._found: dict[int, Detections] = {}

    @reinit__is_reduced
    def update(self, output: tuple[Detections, Sequence[Mapping[str, Any]]]) -> None:
        """Add a batch.

        Raises:
            ConfigError: There is not one target per image, or a field of view is not in the table.
        """
        pred, targets = output
        ids = [int(target["id"]) for target in targets]
        if len(ids) != len(pred):
            raise ConfigError(f"Expected one target per image, but got {len(ids)} for {len(pred)} images.")
        strange = [number for number in ids if number not in self._truth]
        if strange:
            raise ConfigError(f"Field of view {strange[0]} is not in the table that the metric was given.")
        slim = Detections(offsets=pred.offsets, boxes_px=pred.boxes_px, labels=pred.labels, scores=pred.scores)
        self._found.update({number: slim.of_image(position) for position, number in enumerate(ids)})

    def compute(self) -> float:
        """Mean AP at an IoU of 0.5 over all batches and processes.

        Raises:
            NotComputableError: No field of view has come.
        """
        found = _of_all_processes(self._found)
        if not found:
            raise NotComputableError("DetectionAp needs at least one field of view before it can be computed.")
        ids = sorted(found)
        truth = [self._truth[number] for number in ids]
        self.details = detection_metrics(
            concatenate([found[number] for number in ids]),
            [np.asarray(boxes) for boxes, _ in truth],
            [np.asarray(labels) for _, labels in truth],
            self.classes,
            operating_score=self.operating_score,
        )
        return self.details["map50"]

    def completed(self, engine: Any, name: str) -> None:
        """Write all metrics to `engine.state.metrics` at the end of an epoch."""
        super().completed(engine, name)
        engine.state.metrics.update({key: value for key, value in self.details.items() if key != name})


def _of_all_processes(found: dict[int, Detections]) -> dict[int, Detections]:
    """What all processes have found; a field that several of them saw, as samplers pad, counts once."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return found
    parts: list[dict[int, Detections]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, found)
    return {number: detections for part in parts for number, detections in part.items()}
