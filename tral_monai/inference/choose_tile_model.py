# SPDX-License-Identifier: Apache-2.0
"""Which way of running a network on a block fits the network and the settings."""

from __future__ import annotations

import os

import torch
from monai.inferers.inferer import Inferer, SimpleInferer

from tral_monai.errors import ConfigError
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.recheck import RecheckedModel
from tral_monai.inference.tile_model import PerTileModel, TileModel


def choose_tile_model(
    network: torch.nn.Module,
    *,
    engine: EngineSettings | None = None,
    inferer: Inferer | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    early_exit: str | os.PathLike[str] | None = None,
    undefined_below: float = 0.0,
    damaged_at_least: float = 0.0,
    damaged_output: int | None = None,
) -> TileModel:
    """Choose how a network answers for the tiles of a block.

    Args:
        network: the network, on any device.
        engine: what runs it.
        inferer: MONAI inferer of single batches; only tile by tile.
        device: where it will run.
        batch_size: tiles per forward pass.
        early_exit: file of a gate (``exit_gate.pt``): decide from the low magnifications where that is safe enough.
        undefined_below: the map's rule, which says where half precision is close; 0 where there is none.
        damaged_at_least: the map's rule, as above.
        damaged_output: column of the class ``Damaged``; None where the network does not have it.

    Returns:
        With a gate an ``EarlyExitModel``; of a network with dense context a ``DenseContextModel``, unless an inferer of
        the user's runs it; else a ``PerTileModel``. The latter two are in a ``RecheckedModel`` in half precision,
        unless the engine's ``recheck_margin`` is 0.

    Raises:
        CheckpointError: the gate is not of this network.
        ConfigError: gate and inferer together.
    """
    own_inferer = is_own_inferer(inferer)
    if early_exit is not None:
        if own_inferer:
            raise ConfigError("an inferer sees all magnifications of a tile; leave it out to use early_exit")
        from tral_monai.inference.early_exit.early_exit_model import EarlyExitModel

        return EarlyExitModel(network, early_exit, engine=engine, device=device, batch_size=batch_size)
    if getattr(network, "context", "tile") == "dense" and not own_inferer:
        from tral_monai.inference.dense_context_model import DenseContextModel

        model: TileModel = DenseContextModel(network, engine=engine, device=device, batch_size=batch_size)
    else:
        model = PerTileModel(network, engine=engine, inferer=inferer, device=device, batch_size=batch_size)
    if engine is None or engine.precision == "fp32" or not engine.recheck_margin:
        return model
    exact = PerTileModel(network, inferer=inferer, device=device, batch_size=batch_size)
    return RecheckedModel(
        model,
        exact,
        engine.recheck_margin,
        undefined_below=undefined_below,
        damaged_at_least=damaged_at_least,
        damaged_output=damaged_output,
    )


def is_own_inferer(inferer: Inferer | None) -> bool:
    """Whether an inferer is the user's, and not one that just calls the network.

    Args:
        inferer: the inferer, or None.
    """
    return type(inferer) not in (type(None), SimpleInferer)
