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
    """Calls ``dataset.set_epoch(number)`` when an epoch of a trainer starts, also after a resumed run went on.

    Where an epoch is longer than its data loader, Ignite starts the loader over; this counts as another epoch, so that
    samples that come again are drawn anew. Within one process use a sampler that is as long as the epoch.

    Args:
        dataset: The training dataset.

    Raises:
        ConfigError: The dataset has no ``set_epoch``.
    """

    def __init__(self, dataset: HasEpoch) -> None:
        if not callable(getattr(dataset, "set_epoch", None)):
            raise ConfigError(f"dataset must have set_epoch(epoch), but {type(dataset).__name__} has not")
        self.dataset = dataset
        self._restarts = 0

    def attach(self, engine: Engine) -> None:
        """Binds to a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self)
        engine.add_event_handler(Events.DATALOADER_STOP_ITERATION, self.start_over)

    def __call__(self, engine: Engine) -> None:
        """Passes the epoch on.

        Args:
            engine: The trainer.
        """
        self.dataset.set_epoch(engine.state.epoch + self._restarts)

    def start_over(self, engine: Engine) -> None:
        """Counts the data loader's start from the beginning in the middle of an epoch as another epoch.

        Args:
            engine: The trainer.
        """
        self._restarts += 1
        self(engine)
