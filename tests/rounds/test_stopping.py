# SPDX-License-Identifier: Apache-2.0
import pytest

from tests.rounds.conftest import Scores
from tral_monai.errors import ConfigError
from tral_monai.rounds.stopping import StopAtTarget, StopOnPlateau


def test_the_target_ends_the_run_in_the_round_that_reaches_it(make_engine):
    engine = make_engine(5, Scores(0.5, 0.8, 0.9, 0.9, 0.9), StopAtTarget(0.8))
    engine.run()
    assert engine.round == 2
    assert engine.stop_reason == "f1_macro on val is 0.800 and reached the target 0.800"


def test_a_target_that_is_not_reached_changes_nothing(make_engine):
    engine = make_engine(3, Scores(0.5, 0.6, 0.7), StopAtTarget(0.8))
    engine.run()
    assert engine.round == 3
    assert engine.stop_reason is None


def test_a_plateau_of_two_rounds(make_engine):
    engine = make_engine(6, Scores(0.5, 0.7, 0.69, 0.7, 0.9, 0.9), StopOnPlateau(2))
    engine.run()
    assert engine.round == 4
    assert engine.stop_reason == "f1_macro on val has not grown for 2 rounds"


def test_growth_below_min_delta_is_a_plateau(make_engine):
    engine = make_engine(4, Scores(0.5, 0.505, 0.9, 0.9), StopOnPlateau(1, min_delta=0.01))
    engine.run()
    assert engine.round == 2


def test_an_unknown_metric_is_named(make_engine):
    with pytest.raises(ConfigError, match=r"no metric 'f1_mean' on split 'val' in round 1; there are \['f1_macro'\]"):
        make_engine(2, Scores(0.5, 0.5), StopAtTarget(0.8, metric="f1_mean")).run()


def test_patience_below_one():
    with pytest.raises(ConfigError, match="patience must be 1 round or more, but is 0"):
        StopOnPlateau(0)
