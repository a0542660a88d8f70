# SPDX-License-Identifier: Apache-2.0
"""How a detector is run on a batch of tiles; a user who wants another way (test-time augmentation) replaces it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN


class TileInferer(Protocol):
    """Runs a network on tiles: what MONAI's inferers are for a tensor, for a list of images."""

    def __call__(self, inputs: Sequence[torch.Tensor], network: torch.nn.Module) -> Detections:
        """The detections of n tiles, each uint8 (3, h, w) RGB on the network's device."""


class DetectionInferer:
    """Runs :func:`tral_monai.networks.nuclei.detect.detect` and keeps what a nucleus map needs.

    Args:
        autocast: half precision (float16 on CUDA, bfloat16 on a CPU) where torch thinks it safe: faster, scores differ
            in the second or third digit.
    """

    def __init__(self, *, autocast: bool = False) -> None:
        self.autocast = autocast

    def __call__(self, inputs: Sequence[torch.Tensor], network: torch.nn.Module) -> Detections:
        """Detect the nuclei of some tiles.

        Args:
            inputs: n tiles, each uint8 (3, h, w) RGB at the network's ``fov_mpp``.
            network: an :class:`~tral_monai.networks.nuclei.open_set_rcnn.OpenSetRCNN`.

        Returns:
            Detections of the n tiles, with ``evidence``.

        Raises:
            ConfigError: the network is another one.
        """
        if not isinstance(network, OpenSetRCNN):
            raise ConfigError(
                f"DetectionInferer runs an OpenSetRCNN, but got a {type(network).__name__}; give an inferer of your "
                "own that returns Detections"
            )
        found = detect(network, inputs, want={"evidence"}, batch_size=max(len(inputs), 1), autocast=self.autocast)
        return found.detections
