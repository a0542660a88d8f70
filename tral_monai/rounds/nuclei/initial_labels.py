# SPDX-License-Identifier: Apache-2.0
"""The fields of view that the first training starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from ignite.engine import Events

from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine
from tral_monai.rounds.nuclei.label_handler import record_field_answers
from tral_monai.rounds.nuclei.oracles import FieldOracle
from tral_monai.rounds.nuclei.training_table import count_answers, training_table

logger = logging.getLogger(__name__)


class InitialFields:
    """Label a random part of the pool once, before round 1.

    A known class that does not occur in it is told by name, and the run goes on: the detector cannot find that class
    until a query brings it, which is what a lab would see too.

    Args:
        index: fields of view of the pool.
        oracle: who gives the nuclei.
        classes: known classes in the detector's order.
        fraction: part of the pool (the paper's 5 %), at least one field of view.
        count: so many fields of view instead.

    Raises:
        ConfigError: the pool is empty, or ``fraction`` or ``count`` is out of range.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        oracle: FieldOracle,
        classes: Sequence[str],
        *,
        fraction: float = 0.05,
        count: int | None = None,
    ) -> None:
        if index.empty:
            raise ConfigError("the pool has no field of view to start from; check the data set and the fold")
        if count is None and not 0 < fraction <= 1:
            raise ConfigError(f"fraction must lie in (0, 1], but is {fraction}")
        if count is not None and not 1 <= count <= len(index):
            raise ConfigError(f"count must be 1 to {len(index)} (the pool), but is {count}")
        self._index, self._oracle, self._classes = index, oracle, tuple(classes)
        self._count = max(1, round(fraction * len(index))) if count is None else int(count)

    def attach(self, engine: RoundEngine) -> None:
        """Act when the run starts, after the pool is restored from the ledger."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Label the starting set unless the ledger holds it, and tell which classes it lacks.

        Raises:
            ConfigError: the starting set has no nucleus of any known class.
        """
        if not (engine.ledger.labels()["round"] == 0).any():
            ids = np.sort(self._index["id"].to_numpy(np.int64))
            drawn = np.sort(engine.generator("initial").permutation(ids)[: self._count])
            answers = self._oracle.label(drawn)
            if not any(name in self._classes for names in answers.answers for name in names):
                raise ConfigError(
                    f"none of the {len(drawn)} fields of view drawn to start from has a nucleus of a known class "
                    f"{list(self._classes)}, so there is nothing to train on; start from more of the pool, "
                    "such as initial_count 10, or take another seed"
                )
            record_field_answers(engine, 0, answers, self._index)
        counts = count_answers(training_table(engine.ledger, self._index, before_round=1), self._classes)
        absent = [name for name, count in zip(self._classes, counts, strict=True) if count == 0]
        if absent:
            logger.warning(
                "no nucleus of %s is in the first labels: it cannot be detected until a query brings it", absent
            )
        engine.ledger.record_info({"absent_at_start": absent})
