# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from tral_monai.data.pool import Pool
from tral_monai.errors import ConfigError, LedgerError
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import LabelRow, Ledger, QueryRow
from tral_monai.rounds.run_lock import RunLock


class Recorder:
    """Writes down each event with its round, and asks for the head of the pool when a round is evaluated."""

    def __init__(self, ask: int = 1, stop_in: int | None = None) -> None:
        self.seen: list[tuple[int, str]] = []
        self._ask, self._stop_in = ask, stop_in

    def attach(self, engine):
        for event in RoundEvents:
            engine.add_event_handler(event, self.record, event.name)
        engine.add_event_handler(RoundEvents.EVALUATED, self.query)

    def record(self, engine, name):
        self.seen.append((engine.round, name))

    def query(self, engine):
        if engine.round == self._stop_in:
            engine.stop("enough")
        if not engine.is_last_round:
            engine.query = [QueryRow(int(i), "a.tif", 0, 0, None, 0.0, "") for i in engine.pool.unlabelled[: self._ask]]


def make_engine(tmp_path, rounds, *handlers, seed=0) -> RoundEngine:
    return RoundEngine(
        rounds, Pool([1, 2, 3, 4]), Ledger(tmp_path / "ledger.sqlite"), tmp_path, seed=seed, handlers=handlers
    )


FULL = ["ROUND_STARTED", "TRAINED", "EVALUATED", "QUERIED", "LABELLED", "ROUND_COMPLETED"]
LAST = ["ROUND_STARTED", "TRAINED", "EVALUATED", "ROUND_COMPLETED"]


def test_stages_come_in_order_and_the_last_round_asks_nothing(tmp_path):
    recorder = Recorder()
    make_engine(tmp_path, 2, recorder).run()
    assert recorder.seen == [(1, name) for name in FULL] + [(2, name) for name in LAST]


def test_stop_ends_the_run_without_a_further_query(tmp_path):
    recorder = Recorder(stop_in=2)
    engine = make_engine(tmp_path, 5, recorder)
    engine.run()
    assert recorder.seen == [(1, name) for name in FULL] + [(2, name) for name in LAST]
    assert engine.stop_reason == "enough"


def test_a_second_run_of_the_same_engine_counts_from_one(tmp_path):
    recorder = Recorder()
    engine = make_engine(tmp_path, 2, recorder)
    engine.run()
    engine.run()
    assert [round_ for round_, name in recorder.seen if name == "TRAINED"] == [1, 2, 1, 2]


def test_a_second_run_after_a_stop_counts_from_one(tmp_path):
    # Ignite goes on from the epoch it was stopped in: a stop in round 3 of 4 left one round for the second run.
    recorder = Recorder(stop_in=3)
    engine = make_engine(tmp_path, 4, recorder)
    engine.run()
    engine.run()
    assert [round_ for round_, name in recorder.seen if name == "TRAINED"] == [1, 2, 3, 1, 2, 3]


def test_a_second_run_after_an_error_counts_from_one(tmp_path):
    class FailsOnce(Recorder):
        failed = False

        def query(self, engine):
            if engine.round == 2 and not self.failed:
                self.failed = True
                raise KeyboardInterrupt

    recorder = FailsOnce()
    engine = make_engine(tmp_path, 3, recorder)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    engine.run()
    assert [round_ for round_, name in recorder.seen if name == "TRAINED"] == [1, 2, 1, 2, 3]


def test_the_pool_is_restored_from_the_ledger(tmp_path):
    engine = make_engine(tmp_path, 1)
    engine.ledger.record_labels(
        0,
        [
            LabelRow(2, "a.tif", 0, 0, "Stroma", 1.0, 0.1),
            LabelRow(3, "a.tif", 0, 0, None, 1.0, 0.1),
            LabelRow(99, "gone.tif", 0, 0, "Stroma", 1.0, 0.1),
        ],
    )
    engine.run()
    assert engine.pool.labelled.tolist() == [2]
    assert engine.pool.rejected.tolist() == [3]


def test_randomness_depends_on_seed_round_and_purpose_only(tmp_path):
    first, again = make_engine(tmp_path, 3, seed=5), make_engine(tmp_path, 3, seed=5)
    other = make_engine(tmp_path, 3, seed=6)
    for engine in (first, again, other):
        engine.round = 2

    def draw(engine, purpose):
        return engine.generator(purpose).integers(2**31)

    assert draw(first, "query") == draw(first, "query") == draw(again, "query")
    later = np.random.default_rng([5, 3, *b"query"]).integers(2**31)
    assert len({draw(first, "query"), draw(first, "train"), draw(other, "query"), later}) == 4


def test_rounds_below_one(tmp_path):
    with pytest.raises(ConfigError, match="rounds must be 1 or more, but is 0"):
        make_engine(tmp_path, 0)


def test_two_runs_in_one_folder_are_refused_and_the_lock_is_given_back(tmp_path):
    engine = make_engine(tmp_path, 1)
    # flock belongs to the open file, so a second opening in this process is refused as another process would be.
    with RunLock(tmp_path), pytest.raises(LedgerError, match="another process"):
        engine.run()
    engine.run()
    with RunLock(tmp_path):
        pass
