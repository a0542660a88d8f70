# SPDX-License-Identifier: Apache-2.0
"""What a result depends on, as short keys: the slide's content, the weights of a network, the settings of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tral_monai.errors import SlideError, SlideOpenError
from tral_monai.slides.fingerprint import slide_sha256, slide_stamp

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class SlideContent:
    """What a slide held when it was looked at.

    Attributes:
        sha256: of all its bytes.
        stamp: what changes with them, without reading them; None where the file system does not tell.
    """

    sha256: str
    stamp: str | None


def slide_content(path: str | os.PathLike[str], known: SlideContent | None = None) -> SlideContent:
    """Hash a slide, or take the known hash where nobody touched its files since.

    Args:
        path: the slide file.
        known: what it held earlier, such as :func:`recorded_content` says.

    Returns:
        What it holds now.

    Raises:
        SlideError: a file cannot be read.
    """
    try:
        stamp = slide_stamp(path)
        if known is not None and stamp is not None and known.stamp == stamp:
            return known
        return SlideContent(slide_sha256(path), stamp)
    except OSError as error:
        raise SlideError(f"{Path(path).name}: the file cannot be read ({error.strerror}); check the path") from error


def recorded_content(record: Mapping[str, Any]) -> SlideContent | None:
    """What a slide held when an earlier run finished it.

    Args:
        record: the slide's record, or an empty one.
    """
    slide = record.get("slide")
    if not isinstance(slide, Mapping) or not isinstance(slide.get("sha256"), str):
        return None
    return SlideContent(slide["sha256"], slide.get("stamp"))


def require_unchanged(path: str | os.PathLike[str], before: SlideContent) -> None:
    """Refuse a result of a slide that was written to, or went away, while it was read.

    Args:
        path: the slide file.
        before: what it held before it was read.

    Raises:
        SlideError: it holds something else now, such as a slide that is still being copied.
    """
    name = Path(path).name
    if not Path(path).exists():
        raise SlideOpenError(f"{name}: the file went away while it was read; put it back, then run the command again")
    if slide_content(path, before).sha256 != before.sha256:
        raise SlideOpenError(
            f"{name}: the file changed while it was read; run the same command again when it is copied completely"
        )


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
