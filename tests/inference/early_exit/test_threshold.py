# SPDX-License-Identifier: Apache-2.0
"""Expected bounds: with no error in n, 1 - a ** (1 / n); 10 of 1000 at 97.5 %: 0.0183, as in any table."""

from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.early_exit.threshold import choose_threshold


def ranked(n: int, wrong_ranks: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Confidences 1, 1 - 1/n, ... and which of these ranks disagree, in a shuffled order."""
    confidence, disagrees = 1.0 - np.arange(n) / n, np.zeros(n, dtype=bool)
    disagrees[wrong_ranks] = True
    order = np.random.default_rng(0).permutation(n)
    return confidence[order], disagrees[order]


def test_all_agree_and_all_exit():
    choice = choose_threshold(*ranked(400, []), max_disagreement=0.05)
    assert (choice.tiles, choice.exited, choice.disagreeing) == (400, 400, 0)
    assert choice.threshold == pytest.approx(1 / 400)
    assert choice.upper_bound == pytest.approx(1 - 0.05 ** (1 / 400))


def test_coverage_ends_before_the_tiles_that_disagree():
    choice = choose_threshold(*ranked(1000, list(range(500, 1000))), max_disagreement=0.05)
    assert (choice.exited, choice.disagreeing) == (500, 0)
    assert choice.threshold == pytest.approx(1 - 499 / 1000)
    assert choice.upper_bound == pytest.approx(1 - 0.05 ** (1 / 500))


def test_the_surest_may_fail_where_half_of_all_pass():
    # 10 of the surest 100 are too many, 10 of 500 and of 1000 are not; these are tested at half of the 5 %.
    choice = choose_threshold(*ranked(1000, list(range(10))), max_disagreement=0.05)
    assert (choice.exited, choice.disagreeing) == (1000, 10)
    assert choice.upper_bound == pytest.approx(0.0183, abs=5e-5)


@pytest.mark.parametrize(("n", "exited"), [(58, 0), (72, 72)])
def test_too_few_tiles_show_nothing(n, exited):
    # Without an error, 0.95 ** n <= 0.025 from n = 72 on.
    choice = choose_threshold(*ranked(n, []), max_disagreement=0.05)
    assert choice.exited == exited
    assert (choice.threshold is None) == (exited == 0)
    assert choice.upper_bound == (0.0 if exited == 0 else pytest.approx(1 - 0.05 ** (1 / 72)))


def test_everything_disagrees():
    choice = choose_threshold(*ranked(1000, list(range(1000))), max_disagreement=0.05)
    assert (choice.threshold, choice.exited) == (None, 0)


def test_equal_confidences_exit_together():
    disagrees = np.arange(1000) >= 600
    choice = choose_threshold(np.where(np.arange(1000) < 580, 0.9, 0.8), disagrees, max_disagreement=0.05)
    assert (choice.threshold, choice.exited) == (0.9, 580)


def test_the_promise_holds_as_often_as_it_says():
    # Every tile disagrees with chance 2.2 %, whatever its confidence, so every threshold breaks a promise of 2 %.
    generator = np.random.default_rng(0)
    broken = 0
    for _ in range(400):
        disagrees = generator.random(2000) < 0.022
        choice = choose_threshold(generator.random(2000), disagrees, max_disagreement=0.02)
        broken += choice.threshold is not None
    assert broken <= 0.05 * 400 + 3 * (400 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize("name", ["max_disagreement", "confidence_level"])
@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_are_checked(name, share):
    settings = {"max_disagreement": 0.01, name: share}
    with pytest.raises(ConfigError, match=f"{name} must lie above 0 and below 1, but is {share}"):
        choose_threshold(np.ones(3), np.zeros(3, dtype=bool), **settings)


def test_arrays_are_checked():
    with pytest.raises(ConfigError, match=r"one disagreement per tile, but got shapes \(3,\) and \(2,\)"):
        choose_threshold(np.ones(3), np.zeros(2, dtype=bool), max_disagreement=0.01)
    with pytest.raises(ConfigError, match="confidences must be finite"):
        choose_threshold(np.array([1.0, np.nan]), np.zeros(2, dtype=bool), max_disagreement=0.01)
