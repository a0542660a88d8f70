# SPDX-License-Identifier: Apache-2.0
import logging

import pytest

import tral_monai
from tests.rounds.conftest import Scores
from tral_monai.errors import LedgerError
from tral_monai.rounds.engine import RoundEvents
from tral_monai.rounds.ledger import QueryRow
from tral_monai.rounds.ledger_handler import LedgerHandler
from tral_monai.rounds.stopping import StopAtTarget


class AsksOnce:
    """Asks for one sample in each round but the last."""

    def attach(self, engine):
        engine.add_event_handler(RoundEvents.EVALUATED, self)

    def __call__(self, engine):
        if not engine.is_last_round:
            engine.query = [QueryRow(engine.round, "a.tif", 0, 0, None, 0.0, "")]


def stages(engine):
    events = engine.ledger.table("events")
    return list(zip(events["round"], events["stage"], strict=True))


def test_identity_seed_and_provenance_are_recorded(make_engine):
    engine = make_engine(2, LedgerHandler({"strategy": "random", "budget": 5}, {"pool_size": 12}), seed=3)
    engine.run()
    info = engine.ledger.info()
    assert {key: info[key] for key in info["identity"]} == {"strategy": "random", "budget": 5, "seed": 3}
    assert info["pool_size"] == 12
    assert info["rounds"] == 2
    assert info["versions"]["tral_monai"] == tral_monai.__version__
    assert info["stop_reason"] is None


def test_each_stage_is_recorded_when_it_is_first_reached(make_engine):
    engine = make_engine(2, LedgerHandler({}), AsksOnce())
    engine.run()
    full = ["ROUND_STARTED", "TRAINED", "EVALUATED", "QUERIED", "LABELLED", "ROUND_COMPLETED"]
    assert stages(engine) == [(1, name) for name in full] + [
        (2, name) for name in full if name not in ("QUERIED", "LABELLED")
    ]
    before = engine.ledger.table("events")
    engine.run()
    assert engine.ledger.table("events").equals(before)


def test_another_run_in_the_folder_is_refused_before_anything_happens(make_engine):
    make_engine(1, LedgerHandler({"strategy": "random", "budget": 5}), seed=1).run()
    other = make_engine(3, LedgerHandler({"strategy": "balanced", "budget": 5}), seed=2)
    before = other.ledger.info(), stages(other)
    with pytest.raises(
        LedgerError, match=r"seed: recorded 1, asked 2; strategy: recorded 'random', asked 'balanced'\).*another output"
    ):
        other.run()
    assert (other.ledger.info(), stages(other)) == before


def test_more_rounds_are_the_same_run_and_the_first_provenance_stays(make_engine, caplog):
    make_engine(1, LedgerHandler({"budget": 5}, {"note": "first"})).run()
    with caplog.at_level(logging.INFO, "tral_monai"):
        engine = make_engine(3, LedgerHandler({"budget": 5}, {"note": "second"}))
        engine.run()
    assert engine.ledger.info()["rounds"] == 3
    assert engine.ledger.info()["note"] == "first"
    assert f"going on with the run in {engine.output_dir}" in caplog.text


def test_a_run_that_goes_on_after_a_stop_has_no_reason_to_have_stopped(make_engine):
    stopped = make_engine(3, LedgerHandler({}), Scores(0.9, 0.9, 0.9), StopAtTarget(0.8))
    stopped.run()
    assert stopped.ledger.info()["stop_reason"] == "f1_macro on val is 0.900 and reached the target 0.800"
    stopped.run()
    assert stopped.ledger.info()["stop_reason"] is not None
    make_engine(3, LedgerHandler({}), Scores(0.9, 0.9, 0.9)).run()
    assert stopped.ledger.info()["stop_reason"] is None
