# SPDX-License-Identifier: Apache-2.0
"""What a result depends on, as short keys: the content of a slide, the weights of a network, the settings of a run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_READ_WHOLE_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 256, 64 << 10


def slide_fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a slide's content: of all of it up to 64 MB, else of its size and 256 pieces spread over it.

    Reading gigabytes only to find that a slide is finished would cost minutes; a slide that is scanned, cut or
    converted again differs nearly everywhere. Of an MRXS slide, the files in its folder count in
    the same way. Names and times do not matter, so copies are equal.

    Args:
        path: the slide file.

    Returns:
        64 hexadecimal digits.
    """
    main = Path(path)
    files = [main]
    if main.suffix.lower() == ".mrxs":
        files += sorted(file for file in main.with_suffix("").rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        _add_file(digest, file)
    return digest.hexdigest()


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


def _add_file(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{size}\n".encode())
    with file.open("rb") as stream:
        if size <= _READ_WHOLE_BYTES:
            while piece := stream.read(1 << 20):
                digest.update(piece)
            return
        for number in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
