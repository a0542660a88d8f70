# SPDX-License-Identifier: Apache-2.0
"""How far each nucleus lies from the auxiliary detector's prototypes of known and of unknown nuclei."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.fingerprints import weights_sha256
from tral_monai.inference.nuclei.detector_facts import detector_facts
from tral_monai.networks.nuclei.detect import roi_features
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.nuclei.prototypes import Prototypes

Pixels = npt.NDArray[np.uint8]


class PrototypeDistances:
    """Distances at boxes that another detector found.

    Args:
        network: an auxiliary detector, ``OpenSetRCNN(..., role="prototype")``.

    Raises:
        ConfigError: the network has no prototypes.
    """

    def __init__(self, network: OpenSetRCNN) -> None:
        if network.prototypes is None:
            raise ConfigError(
                f"the auxiliary detector must have the role 'prototype', but has {network.role!r}; give the file "
                "auxiliary.pt of a round of osal_nd, or leave it out"
            )
        self.network = network
        self._prototypes: Prototypes = network.prototypes
        self.fov_mpp = detector_facts(network).fov_mpp
        self._weights_sha256: str | None = None

    def settings(self) -> dict[str, Any]:
        """What decides the distances, as plain data."""
        if self._weights_sha256 is None:
            self._weights_sha256 = weights_sha256(self.network)
        return {"weights_sha256": self._weights_sha256, "fov_mpp": self.fov_mpp}

    def __call__(
        self, images: Sequence[torch.Tensor], boxes_px: Sequence[npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Euclidean distances of the RoI embeddings to both prototypes, as in the first stage of OSAL-ND.

        Args:
            images: n tiles, uint8 (3, h, w).
            boxes_px: of each tile its boxes, (k, 4) float32 in pixels of the tile.

        Returns:
            (sum of k, 2) float32: distance to the known and to the unknown prototype; NaN where the detector was never
            shown a nucleus of that side.

        Raises:
            CheckpointError: a distance is not finite.
        """
        if not any(len(boxes) for boxes in boxes_px):
            return np.empty((0, 2), dtype=np.float32)
        bank = self._prototypes
        ready = bank.ready.cpu().numpy()
        features = roi_features(self.network, images, boxes_px, batch_size=max(len(images), 1))
        with torch.inference_mode():
            distances: npt.NDArray[np.float32] = (
                bank.distances(torch.from_numpy(features).to(bank.points.device)).cpu().numpy()
            )
        # A side that no nucleus has shaped yet has no prototype, and so no distance: infinity.
        distances[:, ~ready] = np.nan
        if not np.isfinite(distances[:, ready]).all():
            raise CheckpointError(
                "the auxiliary detector's distances are not finite; its weights are damaged or its training diverged"
            )
        return distances
