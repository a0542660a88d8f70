# SPDX-License-Identifier: Apache-2.0
"""Early exit as a way of running a network on a block: low magnifications for all tiles, 40x where the gate asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.inference.close_calls import close_calls
from tral_monai.inference.dense_context_model import DenseContextModel
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.inference.early_exit.low_branches import Branches, low_scales
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.tile_model import PerTileModel, TileOutputs, TilesDone, running
from tral_monai.networks.tri_cnn import TriCNN


class EarlyExitModel:
    """Decides each tile from the low magnifications where the gate allows it, else as the full model does.

    Every tile is judged by its own features, so neither batches nor the order of blocks change a result, except that
    rounding may tip a tile that lies on the threshold. Tiles that do not exit get the full model's logits; those that
    do get the exit head's log-probabilities, softened by its temperature.

    Args:
        network: the full model.
        gate: a gate, or its file; it must be the network's own.
        engine: what runs the branches; the classifiers always run in full precision. In half precision, tiles that do
            not exit and are close (:func:`~tral_monai.inference.close_calls.close_calls`), by its ``recheck_margin``
            and the gate's rules of the map, are asked about again in full precision.
        device: where the network is.
        batch_size: tiles per forward pass.

    Raises:
        CheckpointError: the gate cannot be read, or belongs to another network.
        ConfigError: the network is no TriCNN of several magnifications.
    """

    def __init__(
        self,
        network: nn.Module,
        gate: ExitGate | str | os.PathLike[str],
        *,
        engine: EngineSettings | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        if not isinstance(network, TriCNN):
            raise ConfigError(
                f"early exit needs a TriCNN, whose magnifications have a branch each, but the network is a "
                f"{type(network).__name__}; leave early_exit out"
            )
        self.network = network
        self.gate = gate if isinstance(gate, ExitGate) else ExitGate.load(gate)
        self.gate.check(network)
        self.engine = engine if engine is not None else EngineSettings()
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._low = low_scales(network)
        self._dense = DenseContextModel(network, engine=engine, device=device) if network.context == "dense" else None
        self._scales = {"low": self._low, "high": (network.highest_scale,)}
        self._exact: PerTileModel | None = None
        if self.engine.precision != "fp32" and self.engine.recheck_margin > 0:
            self._exact = PerTileModel(network, device=device, batch_size=batch_size)
        self._run: dict[str, Callable[[torch.Tensor], tuple[torch.Tensor, ...]]] = {}

    def settings(self) -> dict[str, Any]:
        """What decides a map: the engine, the gate, and in half precision the margin of what is asked again."""
        settings = {
            **self.engine.settings(),
            "exit_gate": {"sha256": self.gate.sha256, "threshold": self.gate.threshold},
        }
        if self._exact is not None:
            settings["recheck_margin"] = self.engine.recheck_margin
        return settings

    def runtime(self) -> dict[str, Any]:
        """The engine's details, the size of batches, and whether the low magnifications are looked at as wholes."""
        return {**self.engine.describe(), "batch_size": self.batch_size, "context": self.network.context}

    def reset(self) -> None:
        """Check the gate against the changed weights, and compile the branches again when they are next asked.

        Raises:
            CheckpointError: the gate does not belong to the new weights.
        """
        self.gate.check(self.network)
        self._run.clear()
        for model in (self._dense, self._exact):
            if model is not None:
                model.reset()

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: TilesDone) -> TileOutputs:
        """Decide the tiles of a block.

        Args:
            block: the tiles.
            want_features: must be False.
            done: told how many tiles exited, and then how many each further batch had.

        Returns:
            Logits (k, C); ``computed`` counts ``tiles`` and ``exited``, and ``rechecked`` where that is asked for.

        Raises:
            ConfigError: features are wanted, which take all branches; the engine cannot run the network; or the memory
                does not suffice.
        """
        if want_features:
            raise ConfigError(
                "features are those of all magnifications, but early exit leaves 40x out for most tiles; set either "
                "save_features or early_exit, not both"
            )
        with running(self.engine, self.batch_size):
            return self._answers(block, done)

    def _answers(self, block: DeviceBlock, done: TilesDone) -> TileOutputs:
        low = self._low_features(block)
        log_probabilities = self.gate.log_probabilities(torch.cat(low, dim=1))
        exits = self.gate.exits(log_probabilities).cpu()
        asked = torch.nonzero(~exits).flatten()
        done(len(block) - len(asked))
        logits = log_probabilities
        for rows in asked.split(self.batch_size) if len(asked) else ():
            (high,) = self._branches("high", block.tiles(rows, [self.network.highest_scale]))
            here = rows.to(high.device)
            features = [part[here] for part in low]
            features.insert(self.network.highest_scale, high)
            logits[here] = self.network.head(torch.cat(features, dim=1).to(self.network.mean.dtype)).float()
            done(len(rows))
        computed = {"tiles": len(block), "exited": len(block) - len(asked)}
        if self._exact is not None:
            close = asked[self._close(logits[asked.to(logits.device)]).cpu()]
            computed["rechecked"] = len(close)
            if len(close):
                again = self._exact(block.part(close), done=_counted_already).logits
                logits[close.to(logits.device)] = again.to(logits.dtype)
        return TileOutputs(logits, None, computed)

    def _close(self, logits: torch.Tensor) -> torch.Tensor:
        """(k,) bool; the rules are the gate's, which the map's must equal."""
        classes = self.gate.classes
        return close_calls(
            torch.softmax(logits, dim=1),
            self.engine.recheck_margin,
            undefined_below=self.gate.undefined_below,
            damaged_at_least=self.gate.damaged_at_least,
            damaged_output=classes.index("Damaged") if "Damaged" in classes else None,
        )

    def _low_features(self, block: DeviceBlock) -> list[torch.Tensor]:
        """Features (k, F of a scale) float32 of all tiles, one tensor per low magnification."""
        if self._dense is not None:
            return [self._dense.scale_features(block, scale) for scale in self._low]
        parts = []
        for start in range(0, len(block), self.batch_size):
            parts.append(self._branches("low", block.tiles(slice(start, start + self.batch_size), self._low)))
        return [torch.cat(of_scale) for of_scale in zip(*parts, strict=True)]

    def _branches(self, name: str, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        module = Branches(self.network, self._scales[name])
        if self.engine.is_reference:
            return tuple(features.float() for features in module(tiles))
        if name not in self._run:
            self._run[name] = compile_module(
                module.eval(), tiles, self.engine, device=self.device, batch_size=self.batch_size
            )
        return self._run[name](tiles)


def _counted_already(tiles: int) -> None:
    """These tiles were reported as done before they were asked about again."""
