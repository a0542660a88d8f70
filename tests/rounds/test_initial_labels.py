# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.rounds.conftest import CLASSES
from tral_monai.errors import ConfigError
from tral_monai.rounds.initial_labels import InitialLabels
from tral_monai.rounds.oracles import ArchiveOracle


def start(index, **options) -> InitialLabels:
    return InitialLabels(index, ArchiveOracle(index, CLASSES), CLASSES, **options)


def test_so_many_of_each_class_from_the_train_split(make_engine, index):
    engine = make_engine(1, start(index, per_class=3))
    engine.run()
    labels = engine.ledger.labels(before_round=1)
    # Blood has only two tiles; Stroma's tiles 10 and 11 are not in split 'train'.
    assert labels["class_given"].value_counts().to_dict() == {"Muscle": 3, "Stroma": 3, "Blood": 2}
    assert set(labels["sample_id"]) <= set(range(10))
    assert engine.pool.labelled.tolist() == sorted(labels["sample_id"])


def test_a_fraction_of_all(make_engine, index):
    engine = make_engine(1, start(index, fraction=0.4))
    engine.run()
    assert len(engine.ledger.labels()) == 5  # 0.4 of 12 is 4.8


def test_full_supervision_also_takes_what_only_a_query_could_reach(make_engine, index):
    # Drawn from split 'train' alone, the arm had fewer labels than a run on the same cohort could spend.
    engine = make_engine(1, start(index, fraction=1.0))
    engine.run()
    assert engine.ledger.labels()["sample_id"].tolist() == list(range(12))


def test_it_is_drawn_once_and_by_the_seed(make_engine, index):
    engine = make_engine(1, start(index, per_class=1))
    engine.run()
    first = engine.ledger.labels()
    engine.run()
    assert engine.ledger.labels().equals(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either per_class or fraction"),
        ({"per_class": 1, "fraction": 0.5}, "give either per_class or fraction"),
        ({"per_class": 0}, "per_class must be 1 or more, but is 0"),
        ({"fraction": 1.5}, r"fraction must lie in \(0, 1\], but is 1.5"),
        ({"per_class": 1, "split": "start"}, "no tile of the index is in split 'start'"),
    ],
)
def test_checks(index, options, message):
    with pytest.raises(ConfigError, match=message):
        start(index, **options)
