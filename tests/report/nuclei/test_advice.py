# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

from tral_monai.report.nuclei.advice import next_step
from tral_monai.report.nuclei.run_data import NucleusRunData

MakeRun = Callable[..., NucleusRunData]


def val(*scores: float) -> dict[tuple[int, str], float]:
    return {(round_, "val"): value for round_, value in enumerate(scores, 1)}


def test_gain_of_the_next_round_is_the_slope_times_its_boxes(make_run: MakeRun) -> None:
    # Boxes 5, 11, 14 and mAP 0.2, 0.32, 0.38: 0.02 a box exactly; a round of 4.5 boxes brings 0.09.
    assert next_step(make_run(scores=val(0.2, 0.32, 0.38))).startswith(
        "Go on: another 4 boxes, at the pace of the last 3 rounds, may bring the validation mAP from 0.38 to 0.47."
    )


def test_a_curve_that_stands_still(make_run: MakeRun) -> None:
    text = next_step(make_run(scores=val(0.3, 0.3, 0.3)))
    assert text.startswith("Consider stopping: over the last 3 rounds the validation mAP moved by +0.000 per round")


def test_one_round_is_no_slope(make_run: MakeRun) -> None:
    assert "One round cannot say" in next_step(make_run(scores=val(0.3)))


def test_the_test_set_decides_nothing(make_run: MakeRun) -> None:
    assert "the test set must not decide it" in next_step(make_run())


def test_queries_less_pure_than_the_pool_are_told(make_run: MakeRun) -> None:
    # Field 3 holds one unknown nucleus only; the pool before it has 5 known of 9.
    text = next_step(make_run(queried={1: [3]}, answered=[1]))
    assert "less pure than the pool (0% against 56% known nuclei)" in text
    assert "only 2 nuclei ticked unknown so far" in text
    assert "less pure" not in next_step(make_run("b", strategy="random", queried={1: [3]}, answered=[1]))
    # 4 of 5 known against 5 of 9, then 1 of 3 against 1 of 4: purer than the pool.
    assert "less pure" not in next_step(make_run("c"))


def test_classes_with_few_boxes_are_named(make_run: MakeRun) -> None:
    assert next_step(make_run()).endswith("Few boxes to learn from: Lym (4), Tum (5). Look for fields that show them.")


def test_an_open_query_comes_first(make_run: MakeRun) -> None:
    assert next_step(make_run(answered=[1])) == "1 field of round 2 still waits for answers."
    assert next_step(make_run("b", answered=[])) == "3 fields of round 2 still wait for answers."
