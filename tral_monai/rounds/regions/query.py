# SPDX-License-Identifier: Apache-2.0
"""A round's query, made once, and the next region of it for whoever asks."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import BusyError, LedgerError, OutputError, RoundSpentError, StrategyError, UnknownItemError
from tral_monai.progress import Progress
from tral_monai.provenance import provenance
from tral_monai.rounds.regions.choose import Choice, choose_regions, make_strategy, stands_in
from tral_monai.rounds.regions.cold_start import COVERAGE
from tral_monai.rounds.regions.exchange import exchange_for
from tral_monai.rounds.regions.identity import site_identity
from tral_monai.rounds.regions.query_note import QueryNote, how_far
from tral_monai.rounds.regions.region import AskedRegion
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.round_state import POOL_FILE, nothing_on, round_strategy, spent
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.run_lock import RunLock
from tral_monai.strategies.registry import strategy_class, strategy_names

logger = logging.getLogger(__name__)

ANYBODY = "somebody"
"""Who holds a region that a client without a name was given."""
_POLL_S = 0.1
_PATIENCE_S = 60.0  # a client that waits for a query holds one of the server's threads, and viewers give up by then
_TRIES = 20  # of an exchange that others keep snatching away


def prepare_query(task: TaskSite, strategy: str | None = None, *, progress: Progress | None = None) -> int:
    """Make the current round's query unless the ledger holds it.

    It is made once, however many threads and processes ask: the others wait for it, a minute at most. What the model
    said of all regions that it looked at stays in the round's folder.

    Args:
        task: the task's site.
        strategy: the strategy's name; None takes the site's.
        progress: told how many slides are looked at.

    Returns:
        The round.

    Raises:
        BusyError: others are making the query, and take longer than a minute; the message says how far it is.
        UnknownItemError: there is no such strategy for the task.
        PoolError: there is no region to ask for; the message says why.
        StrategyError: the strategy cannot work; the message says what it lacks.
        LedgerError: the ledger is that of other classes.
    """
    name = strategy_name(task, strategy)
    with task.ledger() as ledger:
        _begin(task, ledger)
        if ledger.asked(ledger.round):
            return ledger.round
        with _lock(task, progress) as note:
            while not ledger.asked(round_ := ledger.round):
                choice = choose_regions(task, name, ledger, progress=note)
                if ledger.round == round_:  # else a training ended meanwhile: its model shall choose
                    _record(task, ledger, round_, name, choice)
            return round_


def next_region(
    task: TaskSite, *, strategy: str | None = None, client: str | None = None, image: str | None = None
) -> AskedRegion:
    """Hand out the next region of the current round, and reserve it for the client.

    Args:
        task: the task's site.
        strategy: the strategy's name; None takes the site's. Once a region of the round was handed out, the round goes
            on with the strategy that it began with, and the reason says so.
        client: who asks. A client that has a name gets its own reserved region again where nothing else is open.
        image: a slide (or the picture of a region of it): only its best region will do.

    Returns:
        The region, with its reservation.

    Raises:
        RoundSpentError: nothing is open; the message says what opens the next round, or where there is something.
        BusyError: others are making the query, and take longer than a minute; the message says how far it is.
        UnknownItemError: there is no such slide or strategy.
        PoolError: there is no region to ask for; the message says why.
        StrategyError: the strategy cannot work; the message says what it lacks.
        LedgerError: the ledger is that of other classes.
    """
    name = strategy_name(task, strategy)
    slide = None if image is None else _slide_of(task, image)
    with task.ledger() as ledger:
        _begin(task, ledger)
        for _ in range(_TRIES):
            if not ledger.asked(ledger.round):
                prepare_query(task, strategy)
            elif strategy is not None:
                _change_strategy(task, ledger, name)
            round_ = ledger.round
            gone = {asked.region.slide for asked in ledger.asked(round_)} - set(task.catalog.entries())
            found = ledger.reserve_next(
                round_,
                client or ANYBODY,
                seconds=60 * task.site.settings.reserve_minutes,
                slide=slide,
                without_slides=gone,
                again=client is not None,
            )
            if found is not None:
                return found if strategy is None else _with_clause(ledger, found, name)
            if not ledger.asked(round_):
                continue  # withdrawn for another strategy in this very moment
            if slide is None:
                raise RoundSpentError(spent(task, ledger, round_, gone))
            if not exchange_for(task, ledger, round_, slide, gone):
                raise RoundSpentError(nothing_on(task, ledger, round_, slide, gone))
    raise RoundSpentError(f"others are faster: every region of {slide or 'the round'} is taken at once; ask again")


def strategy_name(task: TaskSite, asked: str | None) -> str:
    """The registry's name of a strategy, also where the task stands before it (``tissue_tri_al_quota``).

    Raises:
        UnknownItemError: there is none for the task; the message lists them.
    """
    asked = task.settings.strategy if asked is None else asked
    for name in (asked, asked.removeprefix(f"{task.name}_")):
        with contextlib.suppress(StrategyError):
            return strategy_class(name, task.name).name
    raise UnknownItemError(
        f"there is no {task.name} strategy '{asked}'; there are: {', '.join(strategy_names(task.name))}"
    )


def _begin(task: TaskSite, ledger: RegionLedger) -> None:
    identity = site_identity(task)
    settled = ledger.info()
    if all(settled.get(key) == value for key, value in identity.items()) and "identity" in settled:
        return  # nothing to write, so no lock is taken
    about = {"strategy": task.settings.strategy, "seed": task.site.settings.seed}
    ledger.begin(identity, {**provenance(), **about})


@contextlib.contextmanager
def _lock(task: TaskSite, progress: Progress | None = None) -> Iterator[QueryNote]:
    """Hold the one right to make a query of the task, with a note of how far it is.

    Whoever holds it, thread or process, is waited for, but not for ever.
    """
    folder = task.folder / "query"
    lock, end = RunLock(folder), time.monotonic() + _PATIENCE_S
    while True:
        try:
            lock.acquire()
        except LedgerError as error:  # somebody is making a query
            if time.monotonic() >= end:
                far = how_far(folder)
                raise BusyError(
                    f"the next round's query is being prepared{f' ({far})' if far else ''}; ask again in a moment"
                ) from error
            time.sleep(_POLL_S)
            continue
        except OSError as error:
            raise OutputError(f"cannot write in the folder '{task.folder}': {error.strerror or error}") from error
        break
    try:
        note = QueryNote(folder, progress)
        yield note
        note.remove()
    finally:
        lock.release()


def _record(task: TaskSite, ledger: RegionLedger, round_: int, name: str, choice: Choice) -> None:
    file = task.round_dir(round_) / POOL_FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder '{file.parent}' cannot be made ({error.strerror})") from error
    with atomic_path(file) as temporary:
        choice.pool.to_parquet(temporary, index=False)
    ledger.record_info({f"strategy_round_{round_}": name, f"strategy_used_round_{round_}": choice.used})
    ledger.record_region_query(round_, choice.rows)
    logger.info("%s, round %d: %d regions asked for by %s", task.name, round_, len(choice.rows), choice.used)


def _change_strategy(task: TaskSite, ledger: RegionLedger, name: str) -> None:
    """Make the round's query anew with another strategy, as long as nobody was given anything of it."""
    round_ = ledger.round
    asked, used = round_strategy(ledger, round_)
    if name == asked or _begun(ledger, round_):
        return
    if used == COVERAGE and stands_in(task, make_strategy(task, name), ledger) is not None:
        return  # this one cannot work yet either
    with _lock(task) as note:
        if _begun(ledger, round_) or ledger.round != round_ or round_strategy(ledger, round_)[0] == name:
            return
        choice = choose_regions(
            task, name, ledger, anew=True, progress=note
        )  # before anything is withdrawn: it may fail
        if ledger.round == round_ and ledger.withdraw_query(round_):
            _record(task, ledger, round_, name, choice)
            logger.info("%s, round %d: %s in place of %s", task.name, round_, name, asked)


def _begun(ledger: RegionLedger, round_: int) -> bool:
    return any(asked.answered or asked.reserved_by for asked in ledger.asked(round_))


def _with_clause(ledger: RegionLedger, found: AskedRegion, name: str) -> AskedRegion:
    """The region, whose reason says so where another strategy was asked for than the round's."""
    asked, used = round_strategy(ledger, found.round)
    if name in (asked, used) or not asked or used == COVERAGE:  # what coverage stands in for is said already
        return found
    words = f"round {found.round} goes on with {asked}, with which it began; {name} can choose in the next round"
    return dataclasses.replace(found, reason=f"{found.reason} ({words})")


def _slide_of(task: TaskSite, image: str) -> str:
    origin = task.catalog.patch_origin(image)
    return origin.slide if origin is not None else task.catalog.find(image).name
