# SPDX-License-Identifier: Apache-2.0
"""How a detector is run on a batch of tiles; a user who wants another way (test-time augmentation) replaces it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError
from tral_monai.inference.engines.memory import memory_advice
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN


class TileInferer(Protocol):
    """Runs a network on tiles: what MONAI's inferers are for a tensor, for a list of images."""

    def __call__(self, inputs: Sequence[torch.Tensor], network: torch.nn.Module) -> Detections:
        """The detections of n tiles, each uint8 (3, h, w) RGB on the network's device."""


class DetectionInferer:
    """Runs :func:`tral_monai.networks.nuclei.detect.detect` and keeps what a nucleus map needs.

    Another precision than the network's own is the engine's
    (:func:`tral_monai.inference.nuclei.engine_detector.engine_detector`), which a mapper compares with the network.
    """

    def __call__(self, inputs: Sequence[torch.Tensor], network: torch.nn.Module) -> Detections:
        """Detect the nuclei of some tiles.

        Args:
            inputs: n tiles, each uint8 (3, h, w) RGB at the network's ``fov_mpp``.
            network: an :class:`~tral_monai.networks.nuclei.open_set_rcnn.OpenSetRCNN`.

        Returns:
            Detections of the n tiles, with ``evidence``.

        Raises:
            ConfigError: the network is another one, or the memory does not suffice for so many tiles.
        """
        if not isinstance(network, OpenSetRCNN):
            raise ConfigError(
                f"DetectionInferer runs an OpenSetRCNN, but got a {type(network).__name__}; give an inferer of your "
                "own that returns Detections"
            )
        count = max(len(inputs), 1)
        with memory_advice(count):
            return detect(network, inputs, want={"evidence"}, batch_size=count).detections
