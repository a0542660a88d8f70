# SPDX-License-Identifier: Apache-2.0
"""A trained detector run over a table of fields of view."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tral_monai.data.nuclei.detections import Detections, concatenate
from tral_monai.data.nuclei.fov_table import fov_size_px
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.nuclei.detect import FieldOutputs, detect, roi_features
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.rounds.nuclei.views import View, back_to_images

FloatArray = npt.NDArray[np.float32]


class FieldPredictions(NamedTuple):
    """What a detector says of n fields of view, in the order of the table; see ``FieldOutputs`` for the first three.

    ``views`` holds one :class:`Detections` of the n fields for each view, boxes mapped back to the field.
    """

    detections: Detections
    image_features: FloatArray | None
    predicted_losses: FloatArray | None
    views: tuple[Detections, ...]


class FieldPredictor:
    """Runs a checkpoint over fields of view, each read once.

    Args:
        device: where the network runs.
        batch_size: fields in one forward pass.
        amp: half precision where torch thinks it safe.
        cache_bytes: memory for decoded images, in bytes.
        progress: called with (fields done, fields to do).

    Raises:
        ConfigError: the batch size is below 1.
    """

    def __init__(
        self,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
        amp: bool = False,
        cache_bytes: int = 512 << 20,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, but is {batch_size}")
        self._device, self._batch_size, self._amp, self._progress = torch.device(device), batch_size, amp, progress
        self._reader = FovReader(cache_bytes)
        self._loaded: tuple[Path, int | None, OpenSetRCNN] | None = None

    def predict(
        self,
        checkpoint: str | Path,
        table: pd.DataFrame,
        *,
        want: Collection[str] = frozenset(),
        views: Sequence[View] = (),
        view_want: Collection[str] = frozenset(),
    ) -> FieldPredictions:
        """Detections in all fields of the table, and in views of them.

        Args:
            checkpoint: the detector.
            table: n fields of view.
            want: what to add, see :data:`tral_monai.networks.nuclei.detect.WANTS`.
            views: further pictures of every field to look at.
            view_want: what to add for the views.

        Raises:
            CheckpointError: the checkpoint is not a detector's.
            SlideReadError: an image cannot be read; the message names it.
            ConfigError: something is wanted that this detector cannot give.
        """
        network = self._network(Path(checkpoint))
        outputs: list[FieldOutputs] = []
        seen: list[list[Detections]] = [[] for _ in views]
        if table.empty:
            outputs.append(detect(network, [], want=want))
            seen = [[detect(network, [], want=view_want).detections] for _ in views]
        for rows, images in self._batches(table):
            outputs.append(detect(network, images, want=want, batch_size=self._batch_size, autocast=self._amp))
            for view, found in zip(views, seen, strict=True):
                pictures = [view.apply(image, int(i)) for image, i in zip(images, rows["id"], strict=True)]
                there = detect(network, pictures, want=view_want, batch_size=self._batch_size, autocast=self._amp)
                found.append(back_to_images(there.detections, view, fov_size_px(rows)))
        return FieldPredictions(
            concatenate([part.detections for part in outputs]),
            _joined([part.image_features for part in outputs]),
            _joined([part.predicted_losses for part in outputs]),
            tuple(concatenate(found) for found in seen),
        )

    def roi_features(self, checkpoint: str | Path, table: pd.DataFrame) -> FloatArray:
        """RoI features (sum k, D) float32 at all boxes of the table, row after row."""
        network = self._network(Path(checkpoint))
        parts = [roi_features(network, [], [])]
        for rows, images in self._batches(table):
            parts.append(
                roi_features(network, images, list(rows["boxes_px"]), batch_size=self._batch_size, autocast=self._amp)
            )
        return np.concatenate(parts)

    def _batches(self, table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, list[npt.NDArray[np.uint8]]]]:
        for start in range(0, len(table), self._batch_size):
            rows = table.iloc[start : start + self._batch_size]
            yield rows, [self._reader.read(row) for _, row in rows.iterrows()]
            if self._progress is not None:
                self._progress(min(start + self._batch_size, len(table)), len(table))

    def _network(self, checkpoint: Path) -> OpenSetRCNN:
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else None
        if self._loaded is None or self._loaded[:2] != (checkpoint, stamp):
            network = load_checkpoint(checkpoint)
            if not isinstance(network, OpenSetRCNN):
                raise CheckpointError(
                    f"{checkpoint.name} is a checkpoint of {type(network).__name__}, but a nucleus detector is needed"
                )
            self._loaded = (checkpoint, stamp, network.to(self._device).eval())
        return self._loaded[2]


def _joined(parts: list[FloatArray | None]) -> FloatArray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
