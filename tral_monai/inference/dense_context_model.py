# SPDX-License-Identifier: Apache-2.0
"""A network with dense context on a block: the highest magnification tile by tile, the others once per canvas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.early_exit.low_branches import Branches
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.half_precision import half_precision
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import TileOutputs, TilesDone, running
from tral_monai.networks.dense_backbone import DenseBackbone
from tral_monai.networks.tri_cnn import TriCNN


class DenseContextModel:
    """Gives what the network gives tile by tile, up to rounding, and computes what overlaps below 40x once.

    At a stride of one tile at 40x, neighbouring tiles share three quarters of their pixels per axis at 10x and fifteen
    sixteenths at 2.5x, so that nearly all of the work that is left is the highest magnification's.

    The engine runs the highest magnification. The others go through torch, whatever the engine, because canvases come
    in all sizes, in the engine's precision. The classifier always runs in full precision.

    Args:
        network: has ``context="dense"``.
        engine: what runs the highest magnification; torch in full precision by default.
        device: where the network is.
        batch_size: tiles per forward pass of the highest magnification.

    Raises:
        ConfigError: the network has no dense context.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        engine: EngineSettings | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        if not isinstance(network, TriCNN) or network.context != "dense":
            raise ConfigError(
                f"a dense context model needs a TriCNN that was trained with context='dense', but the network is a "
                f"{type(network).__name__} with context={getattr(network, 'context', None)!r}; run it tile by tile"
            )
        self.network = network
        self.engine = engine if engine is not None else EngineSettings()
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._half: dict[int, DenseBackbone] = {}
        self._run: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] | None = None

    def settings(self) -> dict[str, Any]:
        """The engine; dense evaluation is the network itself and changes nothing."""
        return self.engine.settings()

    def runtime(self) -> dict[str, Any]:
        """The engine's details, the size of batches, and that canvases were looked at as wholes."""
        return {**self.engine.describe(), "batch_size": self.batch_size, "context": "dense"}

    def reset(self) -> None:
        """Compile and cast the branches again when they are next asked."""
        self._half.clear()
        self._run = None

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: TilesDone) -> TileOutputs:
        """Run a block.

        Args:
            block: the tiles.
            want_features: also give the pooled features.
            done: told how many tiles each batch had, after the lower magnifications of all of them.

        Raises:
            ConfigError: the engine cannot run the network, or the memory does not suffice.
        """
        with running(self.engine, self.batch_size):
            return self._answers(block, want_features, done)

    def _answers(self, block: DeviceBlock, want_features: bool, done: TilesDone) -> TileOutputs:
        network = self.network
        parts: list[torch.Tensor | None] = [
            None if scale == network.highest_scale else self.scale_features(block, scale)
            for scale in range(network.num_scales)
        ]
        logits: list[torch.Tensor] = []
        features: list[torch.Tensor] = []
        for start in range(0, len(block), self.batch_size):
            rows = slice(start, start + self.batch_size)
            high = self._high_features(block.tiles(rows, [network.highest_scale]))
            batch = torch.cat([high if part is None else part[rows] for part in parts], dim=1)
            logits.append(network.head(batch.to(network.mean.dtype)).float())
            if want_features:
                features.append(batch)
            done(len(batch))
        return TileOutputs(torch.cat(logits), torch.cat(features) if want_features else None)

    def scale_features(self, block: DeviceBlock, scale: int) -> torch.Tensor:
        """Features of all tiles at a lower magnification, from the canvas as a whole.

        Args:
            block: the tiles.
            scale: position of the magnification.

        Returns:
            (k, F of the magnification) float32.
        """
        canvas = block.canvases[scale].permute(2, 0, 1)[None]  # a view, which is channels_last as it lies
        branch = None if self.engine.precision == "fp32" else self._half_branch(scale)
        return self.network.dense_features(canvas, block.starts_px[scale], scale, branch=branch)

    def _half_branch(self, scale: int) -> DenseBackbone:
        """A copy of a branch with weights that are cast once."""
        if scale not in self._half:
            side = self.network.tile_px
            tile = self.network.mean.new_zeros(1, 3, side, side)
            branch = half_precision(self.network.branches[scale], tile, self.engine.precision)
            assert isinstance(branch, DenseBackbone), "layers of dense backbones can be cast"
            self._half[scale] = branch
        return self._half[scale]

    def _high_features(self, tiles: torch.Tensor) -> torch.Tensor:
        """(b, F of the highest magnification) float32."""
        if self.engine.is_reference:
            return Branches(self.network, (self.network.highest_scale,))(tiles)[0].float()
        if self._run is None:
            module = Branches(self.network, (self.network.highest_scale,)).eval()
            self._run = compile_module(module, tiles, self.engine, device=self.device, batch_size=self.batch_size)
        return self._run(tiles)[0]
