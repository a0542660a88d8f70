# SPDX-License-Identifier: Apache-2.0
"""The round engine: an Ignite engine whose epoch is one round of active learning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ignite.engine import Engine, EventEnum, Events

from tral_monai.data.pool import Pool
from tral_monai.errors import ConfigError
from tral_monai.rounds.ledger import Ledger, QueryRow
from tral_monai.rounds.run_lock import RunLock

logger = logging.getLogger(__name__)


class RoundEvents(EventEnum):
    """The stages of a round, in order; each but the first names what has just been done.

    So training hangs on ROUND_STARTED, evaluation on TRAINED, stopping rules and the query on EVALUATED, the oracle on
    QUERIED. A round without a query goes from EVALUATED to ROUND_COMPLETED.
    """

    ROUND_STARTED = "round_started"
    TRAINED = "trained"
    EVALUATED = "evaluated"
    QUERIED = "queried"
    LABELLED = "labelled"
    ROUND_COMPLETED = "round_completed"


class RoundHandler(Protocol):
    """A step of the loop: stores in ``__init__``, binds in ``attach``, acts in ``__call__``."""

    def attach(self, engine: RoundEngine) -> None:
        """Bind to the engine's events."""
        ...


class RoundEngine(Engine):
    """Runs rounds; what happens in a round is what its handlers do.

    The engine fires the stages and owns what the handlers share: the pool, the ledger, the run's folder, the model of
    the round and its query. The ledger decides what is done already, so a run that was killed goes on when it is run
    again: handlers find their step recorded and only restore its result.

    Args:
        rounds: trainings in all; a query follows each but the last.
        pool: samples that may be asked for.
        ledger: the run's record.
        output_dir: the run's folder.
        seed: every random draw of round r comes from ``(seed, r)``, so that a resumed run draws the same.
        handlers: attached in this order, which is also the order of those that share an event.

    Attributes:
        round: the current round, from 1.
        model_path: checkpoint of the current round's model, set by the training handler.
        query: what the current round asks for, set by the query handler.
        stop_reason: why the run ended before its last round, or None.

    Raises:
        ConfigError: ``rounds`` is below 1.
    """

    def __init__(
        self,
        rounds: int,
        pool: Pool,
        ledger: Ledger,
        output_dir: str | Path,
        *,
        seed: int = 0,
        handlers: Sequence[RoundHandler] = (),
    ) -> None:
        if rounds < 1:
            raise ConfigError(f"rounds must be 1 or more, but is {rounds}")
        super().__init__(self._run_round)
        self.register_events(*RoundEvents)
        self.logger.setLevel(logging.WARNING)  # the handlers tell what goes on; Ignite would count epochs
        self.rounds, self.pool, self.ledger, self.seed = int(rounds), pool, ledger, int(seed)
        self.output_dir = Path(output_dir)
        self.round = 0
        self.model_path: Path | None = None
        self.query: list[QueryRow] = []
        self.stop_reason: str | None = None
        self.add_event_handler(Events.STARTED, self._restore_pool)
        for handler in handlers:
            handler.attach(self)

    def run(self, *_: Any, **__: Any) -> Any:
        """Run all rounds, or those that the ledger does not hold yet.

        Raises:
            LedgerError: another process works in the same folder, or the ledger holds another run.
        """
        self.round, self.stop_reason = 0, None
        self.state.max_epochs = None  # after a stop or an error, Ignite would count on from the epoch that it was in
        with RunLock(self.output_dir):
            return super().run([None], max_epochs=self.rounds, epoch_length=1)

    def stop(self, reason: str) -> None:
        """End the run after this round, without a further query."""
        self.stop_reason = reason
        self.ledger.record_info({"stop_reason": reason})
        logger.info("stopping in round %d: %s", self.round, reason)

    def generator(self, purpose: str) -> np.random.Generator:
        """Randomness for one purpose in this round: the same again when the round is run again."""
        return np.random.default_rng([self.seed, self.round, *purpose.encode()])

    @property
    def round_dir(self) -> Path:
        """Folder of the current round."""
        return self.output_dir / "rounds" / f"round_{self.round:03d}"

    @property
    def is_last_round(self) -> bool:
        """Whether this round trains the last model, after which nothing more is asked."""
        return self.round >= self.rounds or self.stop_reason is not None

    def _restore_pool(self, _: Engine) -> None:
        labels = self.ledger.labels()
        declined = labels["class_given"].isna()
        own = set(self.pool.ids.tolist())

        def inside(ids: Iterable[int]) -> list[int]:
            return [i for i in ids if i in own]

        self.pool.load_state_dict(
            {
                "labelled": inside(labels.loc[~declined, "sample_id"].tolist()),
                "rejected": inside(labels.loc[declined, "sample_id"].tolist()),
            }
        )

    def _run_round(self, _: Engine, __: Any) -> None:
        self.round += 1
        self.model_path, self.query = None, []
        for event in (RoundEvents.ROUND_STARTED, RoundEvents.TRAINED, RoundEvents.EVALUATED):
            self.fire_event(event)
        if self.query:
            self.fire_event(RoundEvents.QUERIED)
            self.fire_event(RoundEvents.LABELLED)
        self.fire_event(RoundEvents.ROUND_COMPLETED)
        if self.stop_reason is not None:
            self.terminate()
