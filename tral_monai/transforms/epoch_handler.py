# SPDX-License-Identifier: Apache-2.0
"""Tells a dataset which epoch it is, so that its random transforms draw anew."""

from __future__ import annotations

from typing import Protocol

from ignite.engine import Engine, Events

from tral_monai.errors import ConfigError


class HasEpoch(Protocol):
    """Anything whose draws depend on the epoch, such as a ``NucleusDataset``."""

    def set_epoch(self, epoch: int) -> None:
        """Take note of the epoch."""
        ...


class EpochHandler:
    """Calls ``dataset.set_epoch(epoch)`` when an epoch of a trainer starts, also after a resumed run went on.

    Args:
        dataset: The training dataset.

    Raises:
        ConfigError: The dataset has no ``set_epoch``.
    """

    def __init__(self, dataset: HasEpoch) -> None:
        if not callable(getattr(dataset, "set_epoch", None)):
            raise ConfigError(f"dataset must have set_epoch(epoch), but {type(dataset).__name__} has not")
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Binds to a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Passes the epoch on.

        Args:
            engine: The trainer.
        """
        self.dataset.set_epoch(engine.state.epoch)
