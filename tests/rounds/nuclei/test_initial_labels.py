# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from tests.rounds.nuclei.conftest import OPEN_SET
from tral_monai.errors import ConfigError
from tral_monai.rounds.nuclei.initial_labels import InitialFields
from tral_monai.rounds.nuclei.oracles import ArchiveFieldOracle


@pytest.fixture
def start(table, make_table_engine):
    def run(seed=0, **options):
        oracle = ArchiveFieldOracle(table, OPEN_SET)
        engine = make_table_engine(1, seed=seed)
        InitialFields(table, oracle, OPEN_SET.known, **options)(engine)
        return engine

    return run


def test_a_fraction_of_the_pool_once(start):
    engine = start(fraction=0.75)
    first = engine.ledger.labels()
    assert len(first) == 3
    assert set(first["round"]) == {0}
    assert engine.pool.labelled.tolist() == first["sample_id"].tolist()
    again = start(fraction=1.0)  # with the ledger of the first
    assert again.ledger.labels().equals(first)


@pytest.mark.parametrize("drawn", [0, 2])
def test_one_field_at_the_least_drawn_by_the_seed(start, drawn):
    seed = next(s for s in range(20) if first_drawn(s) == drawn)
    assert start(seed=seed, fraction=0.05).ledger.labels()["sample_id"].tolist() == [drawn]


def test_absent_known_classes_are_told_by_name_at_every_start(start, table, caplog):
    seed = next(s for s in range(20) if first_drawn(s) == 2)  # two tumour cells
    engine = start(seed=seed, count=1)
    assert engine.ledger.labels()["sample_id"].tolist() == [2]
    message = "no nucleus of ['lymphocyte'] is in the first labels: it cannot be detected until a query brings it"
    assert caplog.messages == [message]
    assert engine.ledger.info()["absent_at_start"] == ["lymphocyte"]
    start(seed=seed, count=1)
    assert caplog.messages == [message] * 2


def test_nothing_is_said_where_all_are_there(start, caplog):
    engine = start(fraction=1.0)
    assert not caplog.messages
    assert engine.ledger.info()["absent_at_start"] == []


def test_no_known_nucleus_at_all_stops_before_anything_is_spent(start, make_table_engine):
    seed = next(s for s in range(20) if first_drawn(s) in (1, 3))
    with pytest.raises(
        ConfigError, match="none of the 1 fields of view drawn to start from .*such as initial_count 10, or"
    ):
        start(seed=seed, count=1)
    assert make_table_engine(1).ledger.labels().empty


def first_drawn(seed):
    """The field of view that a run of this seed draws first: round 0's generator for the purpose "initial"."""
    return int(np.random.default_rng([seed, 0, *b"initial"]).permutation(np.arange(4))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "fraction must lie in \\(0, 1\\], but is 0.0"),
        ({"fraction": 1.5}, "fraction must lie in \\(0, 1\\], but is 1.5"),
        ({"count": 0}, "count must be 1 to 4 \\(the pool\\), but is 0"),
        ({"count": 5}, "count must be 1 to 4 \\(the pool\\), but is 5"),
    ],
)
def test_wrong_options(start, options, message):
    with pytest.raises(ConfigError, match=message):
        start(**options)


def test_an_empty_pool(table):
    oracle = ArchiveFieldOracle(table, OPEN_SET)
    with pytest.raises(ConfigError, match="the pool has no field of view to start from"):
        InitialFields(table.iloc[:0], oracle, OPEN_SET.known)
