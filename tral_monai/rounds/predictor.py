# SPDX-License-Identifier: Apache-2.0
"""A trained model's probabilities and features on samples of a triplet index."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from tral_monai.data.feature_cache import FeatureCache, Progress
from tral_monai.data.triplet_source import TripletSource
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.tri_cnn import TriCNN


class Predictions(NamedTuple):
    """Softmax probabilities (n, C) float32 and the features (n, F) float32 that the classifier saw."""

    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


class TripletPredictor:
    """Runs a checkpoint over samples, in the order of the table, in one pass.

    Args:
        device: where the network runs.
        batch_size: triplets in one forward pass.
        feature_dir: where features of frozen backbones are kept; None computes them anew each time.
        progress: called with (triplets done, triplets to do) while features are computed.
    """

    def __init__(
        self,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        feature_dir: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._device, self._batch_size = torch.device(device), batch_size
        self._feature_dir, self._progress = feature_dir, progress
        self._source = TripletSource()
        self._loaded: tuple[Path, int | None, TriCNN] | None = None

    @torch.inference_mode()
    def predict(self, checkpoint: str | Path, table: pd.DataFrame) -> Predictions:
        """Probabilities and features of all samples of the table.

        Raises:
            CheckpointError: the checkpoint cannot be used.
        """
        network = self._network(Path(checkpoint))
        if self._feature_dir is not None and network.frozen and len(table):
            cache = FeatureCache(
                self._feature_dir, network, device=self._device, batch_size=self._batch_size, progress=self._progress
            )
            features = cache.get(table)
        else:
            features = self._compute_features(network, table)
        parts = [
            network(torch.from_numpy(part).to(self._device)).float().softmax(dim=1).cpu().numpy()
            for part in np.split(features, range(self._batch_size * 16, len(features), self._batch_size * 16))
            if len(part)
        ]
        probabilities = np.concatenate(parts) if parts else np.empty((0, len(network.classes)), np.float32)
        return Predictions(probabilities, features)

    def _compute_features(self, network: TriCNN, table: pd.DataFrame) -> npt.NDArray[np.float32]:
        features = np.empty((len(table), network.num_features), np.float32)
        done = 0
        for positions, images in self._source.iter_blocks(table, max_triplets=self._batch_size):
            features[positions] = network.features(torch.from_numpy(images).to(self._device)).float().cpu().numpy()
            done += len(positions)
            if self._progress is not None:
                self._progress(done, len(table))
        return features

    def _network(self, checkpoint: Path) -> TriCNN:
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else None
        if self._loaded is None or self._loaded[:2] != (checkpoint, stamp):
            self._loaded = (checkpoint, stamp, load_checkpoint(checkpoint).to(self._device).eval())
        return self._loaded[2]
