# SPDX-License-Identifier: Apache-2.0
"""A bar for the batches of an engine that runs long enough to be watched."""

from __future__ import annotations

from ignite.engine import Engine, Events

from tral_monai.progress import progress_bar


class BatchProgress:
    """Show how many batches of an epoch are done; nothing is drawn where standard error is no terminal.

    Args:
        description: what is being done, such as ``"evaluation"``.
    """

    def __init__(self, description: str) -> None:
        self._update = progress_bar(description)

    def attach(self, engine: Engine) -> None:
        """Act after each batch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Move the bar."""
        total = engine.state.epoch_length or 0
        self._update((engine.state.iteration - 1) % max(total, 1) + 1, total)
