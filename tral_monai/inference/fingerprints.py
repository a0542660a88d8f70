# SPDX-License-Identifier: Apache-2.0
"""What a result depends on besides its slide, as short keys: the weights of a network, the settings of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers, with their names, shapes and types; equal on every device.

    Args:
        network: the network.

    Returns:
        64 hexadecimal digits.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def run_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 of settings, whatever the order of their keys.

    Args:
        parts: plain data that JSON can express.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()
