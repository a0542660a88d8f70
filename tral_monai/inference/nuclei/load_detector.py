# SPDX-License-Identifier: Apache-2.0
"""Detectors from checkpoints, with the auxiliary one optional: what a configuration names by file."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tral_monai.inference.load_network import load_finite
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN


def load_detector(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> OpenSetRCNN:
    """A detector from its checkpoint.

    Args:
        path: checkpoint of an ``OpenSetRCNN``.
        map_location: device of the network.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: there is no such file, it holds another kind of network, or weights that are not finite.
    """
    return load_finite(path, expect=OpenSetRCNN, map_location=map_location)


def load_auxiliary(
    path: str | os.PathLike[str] | None,
    *,
    beside: str | os.PathLike[str] | None = None,
    map_location: str | torch.device = "cpu",
) -> OpenSetRCNN | None:
    """The auxiliary detector, or None where none is given.

    Args:
        path: checkpoint of an ``OpenSetRCNN`` of the role ``prototype``, None or empty for none; ``auto`` takes
            ``auxiliary.pt`` in the folder of ``beside``, if there is one and it has prototypes.
        beside: checkpoint of the target detector.
        map_location: device of the network.

    Raises:
        CheckpointError: there is no such file, or it holds another kind of network.
    """
    if path != "auto":
        return load_detector(path, map_location=map_location) if path else None
    found = Path(beside).with_name("auxiliary.pt") if beside is not None else None
    if found is None or not found.is_file():
        return None
    network = load_detector(found, map_location=map_location)
    return network if network.prototypes is not None else None
