# SPDX-License-Identifier: Apache-2.0
"""The step that ties a run to its ledger: identity, provenance and the time of every stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Events

from tral_monai.provenance import provenance
from tral_monai.rounds.engine import RoundEngine, RoundEvents

logger = logging.getLogger(__name__)


class LedgerHandler:
    """Begin the run in the ledger, or go on with it, and record when each stage was reached.

    Args:
        identity: JSON values that make it the same run; another value is refused when the run goes on.
        info: JSON values to record besides, such as colours and pool sizes.
    """

    def __init__(self, identity: Mapping[str, Any], info: Mapping[str, Any] | None = None) -> None:
        self._identity, self._info = dict(identity), dict(info or {})

    def attach(self, engine: RoundEngine) -> None:
        """Act at the start of the run and at every stage; attach it first."""
        engine.add_event_handler(Events.STARTED, self)
        for event in RoundEvents:
            engine.add_event_handler(event, self.record_stage, event.name)

    def __call__(self, engine: RoundEngine) -> None:
        """Begin or go on.

        Raises:
            LedgerError: the ledger holds another run.
        """
        resumed = engine.ledger.begin({**self._identity, "seed": engine.seed}, {**provenance(), **self._info})
        # The reason of an earlier stop is out of date: where it holds, the rule that stopped the run stops it again.
        engine.ledger.record_info({"rounds": engine.rounds, "stop_reason": None})
        if resumed:
            logger.info("going on with the run in %s", engine.output_dir)

    @staticmethod
    def record_stage(engine: RoundEngine, stage: str) -> None:
        """Record the first time that this stage was reached."""
        engine.ledger.record_event(engine.round, stage)
