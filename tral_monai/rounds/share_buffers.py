# SPDX-License-Identifier: Apache-2.0
"""Distributed training: every process validates the model that is saved."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import distributed


class ShareBuffers:
    """Copy a network's buffers from process 0 to all others before each validation.

    ``DistributedDataParallel`` keeps parameters equal, but running statistics of batch normalisation only at the start
    of a training step: after the last one each process has its own, and would validate a slightly different network
    from the one that process 0 saves. Without a process group it does nothing.

    Args:
        network: the network itself, not its ``DistributedDataParallel`` wrapper.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network

    def attach(self, engine: Engine) -> None:
        """Act when an epoch of the validation engine starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Copy the buffers."""
        if distributed.is_available() and distributed.is_initialized():
            for buffer in self._network.buffers():
                distributed.broadcast(buffer, src=0)
