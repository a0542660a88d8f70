# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest

from tral_monai.errors import ConfigError, PoolError, StrategyError
from tral_monai.rounds.oracles import (
    ArchiveOracle,
    ClassRequestOracle,
    NoisyOracle,
    Oracle,
    PseudoLabelOracle,
    get_oracle,
)
from tral_monai.strategies.registry import get_strategy

CLASSES = ("Blood", "Muscle", "Stroma")
INDEX = pd.DataFrame({"id": [7, 3, 5], "class": ["Stroma", "Blood", "Muscle"]})


def test_archive_answers_in_the_order_asked_and_charges_each_tile():
    answers = ArchiveOracle(INDEX, CLASSES, seconds_per_tile=30).label([5, 7])
    assert answers.ids.tolist() == [5, 7]
    assert answers.classes.tolist() == [1, 2]
    assert answers.cost_labels.tolist() == [1, 1]
    assert answers.cost_minutes.tolist() == [0.5, 0.5]


def test_archive_has_no_class_pools():
    assert ArchiveOracle(INDEX, CLASSES).pool_classes(np.array([3]), None) is None


def test_class_request_pools_are_the_true_classes():
    assert ClassRequestOracle(INDEX, CLASSES).pool_classes(np.array([7, 3]), None).tolist() == [2, 0]


def test_pseudo_label_pools_are_predicted_and_the_true_class_comes_back():
    oracle = PseudoLabelOracle(INDEX, CLASSES)
    probabilities = np.array([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    assert oracle.pool_classes(np.array([7, 3]), probabilities).tolist() == [1, 2]
    assert oracle.label([7, 3]).classes.tolist() == [2, 0]


def test_pseudo_label_needs_predictions():
    with pytest.raises(StrategyError, match="'pseudo_label' needs the model's probabilities"):
        PseudoLabelOracle(INDEX, CLASSES).pool_classes(np.array([7]), None)


def test_unknown_sample():
    with pytest.raises(PoolError, match=r"no label for sample 99 \(2 in all\)"):
        ArchiveOracle(INDEX, CLASSES).label([3, 99, 98])


def test_unknown_class():
    with pytest.raises(ConfigError, match=r"classes \['Stroma'\], which are not among \['Blood', 'Muscle'\]"):
        ArchiveOracle(INDEX, CLASSES[:2])


def test_negative_time():
    with pytest.raises(ConfigError, match="seconds_per_tile must be 0 or more"):
        ArchiveOracle(INDEX, CLASSES, seconds_per_tile=-1)


def big_index(n: int = 3000) -> pd.DataFrame:
    return pd.DataFrame({"id": np.arange(n), "class": ["Blood"] * n})


def test_noise_has_the_stated_rate_and_does_not_depend_on_the_order_asked():
    oracle = NoisyOracle(ArchiveOracle(big_index(), CLASSES), 3, rate=0.2, seed=4)
    given = oracle.label(np.arange(3000)).classes
    # 3,000 draws at 0.2: standard deviation 0.0073, so 0.03 is more than four of them.
    assert abs((given != 0).mean() - 0.2) < 0.03
    assert abs((given == 1).mean() - 0.1) < 0.03
    assert oracle.label(np.arange(3000)[::-1]).classes.tolist() == given[::-1].tolist()


def test_noise_by_confusion_matrix():
    swap = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    oracle = NoisyOracle(ClassRequestOracle(INDEX, CLASSES), 3, confusion=swap)
    assert oracle.label([3, 5, 7]).classes.tolist() == [1, 0, 2]
    assert oracle.pool_classes(np.array([3]), None).tolist() == [0]


def test_declined_samples_stay_declined():
    class Declines(ArchiveOracle):
        def _classes_of(self, ids):
            return np.full(len(ids), -1, dtype=np.int64)

    assert NoisyOracle(Declines(INDEX, CLASSES), 3, rate=1.0).label([3]).classes.tolist() == [-1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rate": 1.5}, "must lie in 0..1, but is 1.5"),
        ({"confusion": [[1, 0], [0, 1]]}, "must be 3 x 3 chances"),
        ({"confusion": [[2, -1, 0], [0, 1, 0], [0, 0, 1]]}, "must be 3 x 3 chances"),
        ({"confusion": [[0.5, 0, 0], [0, 1, 0], [0, 0, 1]]}, "each row of confusion must sum to 1"),
    ],
)
def test_noise_checks(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        NoisyOracle(ArchiveOracle(INDEX, CLASSES), 3, **kwargs)


def test_oracles_by_name():
    assert isinstance(get_oracle("pseudo_label", INDEX, CLASSES), PseudoLabelOracle)
    assert isinstance(get_oracle("archive", INDEX, CLASSES, noise=0.1, seed=3), NoisyOracle)
    assert isinstance(get_oracle("class_request", INDEX, CLASSES), Oracle)
    with pytest.raises(ConfigError, match="no oracle is called 'delphi'"):
        get_oracle("delphi", INDEX, CLASSES)


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("tri_al_iter", ClassRequestOracle), ("tri_al_quota", ArchiveOracle), ("random", ArchiveOracle)],
)
def test_auto_takes_what_the_strategy_needs(strategy, kind):
    assert type(get_oracle("auto", INDEX, CLASSES, strategy=get_strategy(strategy))) is kind
