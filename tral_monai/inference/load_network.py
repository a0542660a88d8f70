# SPDX-License-Identifier: Apache-2.0
"""Networks from checkpoints, refused before the first slide where they are of another kind or damaged."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tral_monai.errors import CheckpointError
from tral_monai.networks.checkpoint import Network, load_checkpoint
from tral_monai.networks.tri_cnn import TriCNN


def load_tissue_network(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> TriCNN:
    """A tissue classifier from its checkpoint: what a configuration names by file.

    Args:
        path: checkpoint of a ``TriCNN``.
        map_location: device of the network.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: there is no such file, it holds another kind of network, or weights that are not finite.
    """
    return load_finite(path, expect=TriCNN, map_location=map_location)


def load_finite(
    path: str | os.PathLike[str], *, expect: type[Network], map_location: str | torch.device = "cpu"
) -> Network:
    """A network of a given kind from its checkpoint.

    Args:
        path: the checkpoint.
        expect: kind of network that it must hold.
        map_location: device of the network.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: there is no such file, it holds another kind of network, or weights that are not finite.
    """
    network = load_checkpoint(path, map_location=map_location, expect=expect)
    require_finite(network, Path(path).name)
    return network


def require_finite(network: torch.nn.Module, name: str) -> None:
    """Refuse weights with NaN or infinity: a classifier would answer nothing, a detector would find nothing.

    Args:
        network: what to look through: its parameters and the statistics of its normalisation layers.
        name: of its file, for the message.

    Raises:
        CheckpointError: a tensor holds a value that is not finite; the message names it.
    """
    statistics = [pair for pair in network.named_buffers() if pair[0].endswith(("running_mean", "running_var"))]
    for tensor_name, tensor in (*network.named_parameters(), *statistics):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{name} holds weights that are not finite ({tensor_name}): the file is damaged or its training "
                "diverged; copy it again, or train with a lower learning rate"
            )
