# SPDX-License-Identifier: Apache-2.0
"""How a network answers for the tiles of a block: the protocol, and the exact way, tile by tile."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from monai.inferers.inferer import Inferer, SimpleInferer

from tral_monai.errors import CheckpointError
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.compile_module import compile_module, torch_threads
from tral_monai.inference.engines.memory import memory_advice
from tral_monai.inference.engines.settings import EngineSettings

TilesDone = Callable[[int], None]
"""Called with the number of further tiles that are done."""


@dataclasses.dataclass(frozen=True)
class TileOutputs:
    """What a network says of the k tiles of a block.

    Attributes:
        logits: (k, C) float32.
        features: (k, F) float32 pooled features before the classifier, None where not asked for.
        computed: counts for the slide's record, such as how many tiles left early.
    """

    logits: torch.Tensor
    features: torch.Tensor | None = None
    computed: dict[str, int] = dataclasses.field(default_factory=dict)


class TileModel(Protocol):
    """Answers for the tiles of a block. It is called in evaluation mode, without gradients, on the network's device."""

    @property
    def network(self) -> torch.nn.Module:
        """The network that answers; the caller moves it to the device."""

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: TilesDone) -> TileOutputs:
        """The answers for all tiles of a block, in its order; ``done`` is told on the way."""

    def settings(self) -> dict[str, Any]:
        """What decides the answers beyond the weights, as plain data."""

    def runtime(self) -> dict[str, Any]:
        """How the network is run, as plain data."""

    def reset(self) -> None:
        """Forget what was made of the network's weights; to be called when they have changed."""


@contextlib.contextmanager
def running(engine: EngineSettings, batch_size: int) -> Iterator[None]:
    """Around a model's work on a block: the engine's threads for torch, and advice where memory does not suffice.

    Args:
        engine: its ``num_threads`` holds for what torch itself runs, too.
        batch_size: tiles per forward pass.

    Raises:
        ConfigError: the memory does not suffice.
    """
    with memory_advice(batch_size), torch_threads(engine.num_threads):
        yield


class LogitsAndFeatures(torch.nn.Module):
    """A TriCNN that gives its pooled features beside its logits, for engines that take one module.

    Args:
        network: has ``features(image)`` and takes features as well as images.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 9, H, W) uint8 -> (B, C) logits, (B, F) features."""
        features: torch.Tensor = self.network.features(image)  # type: ignore[operator]
        return self.network.head(features.float()), features  # type: ignore[operator]


class PerTileModel:
    """Runs the network on every tile by itself: what it was trained on, and the reference for every faster way.

    Args:
        network: (B, 3 * magnifications, tile_px, tile_px) uint8 to (B, C) logits.
        engine: what runs it; torch in full precision by default, which is the network as it is.
        inferer: MONAI inferer that runs the network, or what the engine made of it, on a batch.
        device: where the network is.
        batch_size: tiles per forward pass.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        engine: EngineSettings | None = None,
        inferer: Inferer | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.network = network
        self.engine = engine if engine is not None else EngineSettings()
        self.inferer = inferer if inferer is not None else SimpleInferer()
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.gives_features = hasattr(network, "features") and hasattr(network, "head")
        self._compiled: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] | None = None

    def settings(self) -> dict[str, Any]:
        """The engine, because another precision may show another class; and an inferer of the user's.

        Such an inferer may have ``settings()`` of its own, plain data that decides what it gives.
        """
        settings = self.engine.settings()
        if type(self.inferer) is not SimpleInferer:
            settings["inferer"] = type(self.inferer).__name__
            if hasattr(self.inferer, "settings"):
                settings["inferer_settings"] = self.inferer.settings()
        return settings

    def reset(self) -> None:
        """Compile the network again with the next batch; torch in full precision uses its weights as they are."""
        self._compiled = None

    def runtime(self) -> dict[str, Any]:
        """The engine's details, the size of batches, and the inferer."""
        return {**self.engine.describe(), "batch_size": self.batch_size, "inferer": type(self.inferer).__name__}

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: TilesDone) -> TileOutputs:
        """Cut and run batch after batch.

        Args:
            block: the tiles.
            want_features: also give the pooled features; for networks with ``features`` and ``head``.
            done: told how many tiles each batch had.

        Raises:
            CheckpointError: the network does not give a row of logits per tile.
            ConfigError: the engine cannot run the network, or the memory does not suffice.
        """
        with running(self.engine, self.batch_size):
            return self._answers(block, want_features, done)

    def _answers(self, block: DeviceBlock, want_features: bool, done: TilesDone) -> TileOutputs:
        logits: list[torch.Tensor] = []
        features: list[torch.Tensor] = []
        for start in range(0, len(block), self.batch_size):
            image = block.tiles(slice(start, start + self.batch_size))
            found = self._run(image, want_features)
            if not isinstance(found[0], torch.Tensor) or found[0].shape[:1] != image.shape[:1]:
                came = tuple(found[0].shape) if isinstance(found[0], torch.Tensor) else type(found[0]).__name__
                raise CheckpointError(
                    f"the network must give logits of shape (B, classes) for a batch of {len(image)} tiles, but gave "
                    f"{came}; the checkpoint is of another network"
                )
            logits.append(found[0])
            features += found[1:]
            done(len(image))
        return TileOutputs(torch.cat(logits), torch.cat(features) if want_features else None)

    def _run(self, image: torch.Tensor, want_features: bool) -> tuple[torch.Tensor, ...]:
        if not self.engine.is_reference:
            return self._run_compiled(image, want_features)
        if want_features:
            features = self.network.features(image)  # type: ignore[operator]
            return self.inferer(features, self.network), features.float()
        return (self.inferer(image, self.network),)

    def _run_compiled(self, image: torch.Tensor, want_features: bool) -> tuple[torch.Tensor, ...]:
        if self._compiled is None:
            module = LogitsAndFeatures(self.network).eval() if self.gives_features else self.network
            self._compiled = compile_module(module, image, self.engine, device=self.device, batch_size=self.batch_size)
        run = self._compiled
        if want_features:
            return run(image)[:2]
        return (self.inferer(image, lambda batch: run(batch)[0]),)
