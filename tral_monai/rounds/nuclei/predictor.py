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
from tral_monai.transforms.views import View, add_noise

FloatArray = npt.NDArray[np.float32]


class FieldPredictions(NamedTuple):
    """What a detector says of n fields of view, in the order of the table; see ``FieldOutputs`` for the first three.

    ``views`` holds one :class:`Detections` of the n fields for each view, boxes mapped back to the field, and
    ``noisy`` one for each level of noise.
    """

    detections: Detections
    image_features: FloatArray | None
    predicted_losses: FloatArray | None
    views: tuple[Detections, ...]
    noisy: tuple[Detections, ...]


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
        noise_levels: Sequence[float] = (),
        noise_want: Collection[str] = frozenset(),
    ) -> FieldPredictions:
        """Detections in all fields of the table, and in altered views of them.

        Args:
            checkpoint: the detector.
            table: n fields of view.
            want: what to add, see :data:`tral_monai.networks.nuclei.detect.WANTS`.
            views: views of every field to look at too.
            view_want: what to add for the views.
            noise_levels: standard deviations of noise to add to every field, each looked at too.
            noise_want: what to add for the noisy fields.

        Raises:
            CheckpointError: the checkpoint is not a detector's.
            SlideReadError: an image cannot be read; the message names it.
            ConfigError: something is wanted that this detector cannot give.
        """
        network = self._network(Path(checkpoint))
        outputs: list[FieldOutputs] = []
        seen: list[list[Detections]] = [[] for _ in views]
        noisy: list[list[Detections]] = [[] for _ in noise_levels]
        for rows, images in self._batches(table):
            outputs.append(self._detect(network, images, want))
            for view, found in zip(views, seen, strict=True):
                there = self._detect(network, [view.image(image) for image in images], view_want).detections
                found.append(view.detections_to_reference(there, fov_size_px(rows)))
            for level, found in zip(noise_levels, noisy, strict=True):
                pairs = zip(images, rows["id"], strict=True)
                pictures = [add_noise(image, level, fov_id=int(number)) for image, number in pairs]
                found.append(self._detect(network, pictures, noise_want).detections)
        return FieldPredictions(
            concatenate([part.detections for part in outputs]),
            _joined([part.image_features for part in outputs]),
            _joined([part.predicted_losses for part in outputs]),
            tuple(concatenate(found) for found in seen),
            tuple(concatenate(found) for found in noisy),
        )

    def roi_features(self, checkpoint: str | Path, table: pd.DataFrame) -> FloatArray:
        """RoI features (sum k, D) float32 at all boxes of the table, row after row."""
        network = self._network(Path(checkpoint))
        parts = []
        for rows, images in self._batches(table):
            parts.append(
                roi_features(
                    network,
                    images,
                    [np.array(boxes, dtype=np.float32) for boxes in rows["boxes_px"]],
                    batch_size=self._batch_size,
                    autocast=self._amp,
                )
            )
        return np.concatenate(parts)

    def _detect(self, network: OpenSetRCNN, images: Sequence[torch.Tensor], want: Collection[str]) -> FieldOutputs:
        return detect(network, images, want=want, batch_size=self._batch_size, autocast=self._amp)

    @torch.inference_mode()
    def embeddings(self, checkpoint: str | Path, table: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """Where the nuclei of a table lie to the prototypes of an auxiliary detector.

        Returns:
            Embeddings (sum k, d) of all boxes, row after row, and the prototypes (2, d), known first; float32.

        Raises:
            CheckpointError: the checkpoint is not that of a detector with prototypes.
        """
        prototypes = self._network(Path(checkpoint)).prototypes
        if prototypes is None:
            raise CheckpointError(f"{Path(checkpoint).name} has no prototypes; give a detector of role 'prototype'")
        features = torch.from_numpy(self.roi_features(checkpoint, table)).to(self._device)
        return prototypes.embed(features).cpu().numpy(), prototypes.points.detach().float().cpu().numpy()

    def _batches(self, table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, list[torch.Tensor]]]:
        """Rows with their images, uint8 (3, h, w); an empty table gives one empty batch."""
        for start in range(0, max(len(table), 1), self._batch_size):
            rows = table.iloc[start : start + self._batch_size]
            pixels = [self._reader.read(row) for _, row in rows.iterrows()]
            yield rows, [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in pixels]
            if self._progress is not None and len(rows):
                self._progress(min(start + self._batch_size, len(table)), len(table))

    def _network(self, checkpoint: Path) -> OpenSetRCNN:
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else None
        if self._loaded is None or self._loaded[:2] != (checkpoint, stamp):
            network = load_checkpoint(checkpoint, expect=OpenSetRCNN)
            self._loaded = (checkpoint, stamp, network.to(self._device).eval())
        return self._loaded[2]


def _joined(parts: list[FloatArray | None]) -> FloatArray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
