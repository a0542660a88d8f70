# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's training of one task: a round of the site, in a process of its own."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from tral_monai.errors import ConfigError, TralError
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.train_config import train_values
from tral_monai.rounds.regions.train_stats import train_stats
from tral_monai.strategies.registry import strategy_names

logger = logging.getLogger(__name__)

OF_THE_SERVER = (
    "model",
    "client_id",
    "name",
    "device",
    "gpus",
    "multi_gpu",
    "local_rank",
    "bundle_path",
    "enqueue",
    "run_sync",
)
"""Keys that MONAI Label and its clients put into every request, without a meaning here."""

_WORKER = "monailabel.interfaces.utils.app"
_READ_LAST_LINE_S = 1.0


class SiteTrainTask(TrainTask):
    """Runs one round of training, or goes back to the model before.

    Everything that it needs and leaves lies in the site's folder: MONAI Label calls it in a new process.

    Args:
        task: the task's site.
    """

    def __init__(self, task: TaskSite) -> None:
        what = "tissue classifier" if task.name == "tissue" else "nucleus detector"
        super().__init__(
            f"Train the {what} on all annotated regions, publish it if it is not worse on the held-out ones, and ask "
            "for the next regions"
        )
        self._task = task

    def config(self) -> dict[str, Any]:
        """What a client may choose: plain values, and lists with the default first."""
        task = self._task
        names = strategy_names(task.name)
        own = task.settings.strategy
        return {
            "max_epochs": int(train_values(task)["max_epochs"]),
            "warm_start": task.warm_start,
            "strategy": [own, *(name for name in names if name != own)],
            "force": False,
            "rollback": False,
        }

    def stats(self) -> dict[str, Any]:
        """Where the task stands; see :func:`tral_monai.rounds.regions.train_stats.train_stats`."""
        return train_stats(self._task)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train a round, or with ``rollback`` swap the published model and the one before it.

        Args:
            request: the client's choices; a list stands for its first entry.
            datastore: not used: answers come from the site's ledger.

        Returns:
            What was done, as JSON values.

        Raises:
            TralError: what is wrong and what to do. In MONAI Label's training process, the message is the last line of
                the log, and the process exits with status 1.
        """
        try:
            return self._run(_options(request))
        except Exception as error:
            if not _is_worker():
                raise
            # The server keeps the last 20 lines, and a traceback would push the message out of them.
            if not isinstance(error, TralError):
                logger.exception("the training of '%s' failed", self._task.name)
            logger.error("%s: %s", type(error).__name__, error)
            time.sleep(_READ_LAST_LINE_S)  # the server stops reading lines as soon as the process is gone
            raise SystemExit(1) from error

    def _run(self, options: dict[str, Any]) -> dict[str, Any]:
        from tral_monai.rounds.regions.train_round import roll_back, train_round

        wanted = options.pop("rollback", False)
        if wanted in (True, "true", "True"):
            result = roll_back(self._task)
            logger.info("rolled back: the published model is that of round %d again", result["published_round"])
            return result
        if wanted not in (False, "false", "False"):
            raise ConfigError(f"rollback must be true or false, but is {wanted!r}")
        return train_round(self._task, options=options, log=logger.info)


def _options(request: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in request.items() if name not in OF_THE_SERVER}
    return {name: value[0] if isinstance(value, list) and value else value for name, value in options.items()}


def _is_worker() -> bool:
    """Whether this process is the one that MONAI Label started for this training alone."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _WORKER
