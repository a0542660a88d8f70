# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.inference.run_estimate import RunEstimate, in_words


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def work(estimate: RunEstimate, clock: Clock, tiles: int, seconds: float) -> None:
    estimate.slide_started()
    estimate.tiles_done(0, tiles)
    clock.now += seconds
    estimate.tiles_done(tiles, tiles)
    estimate.slide_done(worked=True)


def test_nothing_is_known_before_the_first_tiles(clock: Clock) -> None:
    estimate = RunEstimate(10, clock=clock)
    estimate.slide_started()
    clock.now += 5
    assert estimate.seconds_left is None
    estimate.tiles_done(0, 100)
    assert estimate.seconds_left is None
    assert estimate.tiles_per_second is None


def test_it_is_of_the_whole_run_and_not_of_the_slide(clock: Clock) -> None:
    estimate = RunEstimate(4, clock=clock)
    estimate.slide_started()
    clock.now += 5  # the mask
    estimate.tiles_done(0, 100)
    clock.now += 5
    estimate.tiles_done(50, 100)
    assert estimate.tiles_per_second == 10.0
    # 50 tiles took 10 s with the mask; 50 are left here and 100 on each of 3 slides.
    assert estimate.seconds_left == pytest.approx(350 * 10 / 50)


def test_slides_left_have_the_tiles_of_those_so_far(clock: Clock) -> None:
    estimate = RunEstimate(4, clock=clock)
    work(estimate, clock, 100, 10.0)
    assert estimate.seconds_left == pytest.approx(3 * 100 * 0.1)
    work(estimate, clock, 300, 50.0)
    # 400 tiles in 60 s; two slides of 200 are left.
    assert estimate.seconds_left == pytest.approx(400 * 60 / 400)
    work(estimate, clock, 200, 30.0)
    work(estimate, clock, 200, 30.0)
    assert estimate.seconds_left == 0.0


def test_slides_that_were_finished_earlier_say_nothing(clock: Clock) -> None:
    estimate = RunEstimate(12, clock=clock)
    for _ in range(10):
        estimate.slide_started()
        clock.now += 0.001
        estimate.slide_done(worked=False)
    assert estimate.seconds_left is None
    work(estimate, clock, 100, 20.0)
    assert estimate.seconds_left == pytest.approx(20.0)


def test_slides_without_tissue_take_time_too(clock: Clock) -> None:
    estimate = RunEstimate(3, clock=clock)
    work(estimate, clock, 0, 4.0)
    assert estimate.seconds_left == pytest.approx(8.0)
    work(estimate, clock, 100, 6.0)
    # 100 tiles in 10 s on two slides: 50 on the last one.
    assert estimate.seconds_left == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (45.2, "45 s"),
        (90, "2 min"),
        (3569, "59 min"),
        (3599, "1 h 00 min"),
        (11100, "3 h 05 min"),
        (2e5, "2 d 7 h"),
    ],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
