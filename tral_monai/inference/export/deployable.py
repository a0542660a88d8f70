# SPDX-License-Identifier: Apache-2.0
"""What exporting needs to know of a kind of network: what goes in and out, tiles to try it on, when answers agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tral_monai.inference.agreement import Agreement

Tiles = npt.NDArray[np.uint8]
Answers = dict[str, npt.NDArray[Any]]
"""Outputs of several tiles by name."""
Run = Callable[[Tiles], tuple[npt.NDArray[Any], ...]]
"""One call of an exported file: what goes in as it says it wants it, its outputs in their order."""

INPUT = "image"


class Deployable(Protocol):
    """A network on its way out."""

    @property
    def network(self) -> nn.Module:
        """The network, on the CPU, in evaluation mode."""

    @property
    def module(self) -> nn.Module:
        """What is exported: takes ``image`` (uint8) and gives ``output_names``."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the module's outputs."""

    @property
    def any_batch(self) -> bool:
        """``image`` is a batch (B, channels, height, width) of any B; else one tile (channels, height, width)."""

    @property
    def tile_px(self) -> int:
        """Side of the tiles."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Formats that there are for networks, but not for this one, with the reason."""

    def metadata(self) -> dict[str, str]:
        """What a file must say for itself: classes, magnifications or resolution, layout. Flat, as ONNX keeps it."""

    def data_format(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """``metadata.json`` of the bundle, with what is said of inputs and outputs made true of this network."""

    def generated_tiles(self, count: int, *, seed: int) -> Tiles:
        """(count, channels, tile_px, tile_px) uint8 that look like tissue, drawn."""

    def slide_tiles(self, path: Path, count: int, *, mpp: float | None, seed: int) -> Tiles:
        """The same, from the tissue of a slide."""

    def reference(self, tiles: Tiles) -> Answers:
        """What the network itself says of tiles."""

    def answers(self, run: Run, tiles: Tiles) -> Answers:
        """What an exported file says of tiles."""

    def compare(self, reference: Answers, other: Answers) -> Agreement:
        """How far two answers about the same tiles are from each other."""


def example_of(deployable: Deployable) -> torch.Tensor:
    """What an exporter runs the module on to see what it does: two tiles for a batch of any size, else one."""
    tiles = torch.from_numpy(deployable.generated_tiles(2, seed=0))
    return tiles if deployable.any_batch else tiles[0]
