# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import math
import sqlite3
from collections.abc import Callable

import pytest

from tral_monai.report.advice import Advice, ClassAdvice, advise, decide
from tral_monai.report.run_data import RunData
from tral_monai.report.slopes import Slope, Trend

MakeRun = Callable[..., RunData]


def entry(name: str, share: float, trend: Trend, left: int | None = 50) -> ClassAdvice:
    return ClassAdvice(
        name=name,
        f1=0.6,
        fnr=share / 2,
        error_share=share,
        slope=Slope(0.001, 0.0004),
        trend=trend,
        next_gain=0.1,
        macro_headroom=0.2,
        mistaken_for="Muscle",
        mistaken_share=0.75,
        tiles=40,
        labelled=10,
        left_in_pool=left,
    )


def advice_of(run: RunData) -> Advice:
    advice = advise(run)
    assert advice is not None
    return advice


def test_advice_of_the_small_run_by_hand(make_run: MakeRun) -> None:
    advice = advice_of(make_run())
    assert (advice.round, advice.rounds_used, advice.next_labels, advice.unit) == (2, 2, 4.0, 100)
    blood, stroma = advice.classes
    assert (blood.name, stroma.name) == ("Blood", "Stroma")
    # FNR on val in round 2: Blood 2/10, Stroma 1/10.
    assert blood.fnr == pytest.approx(0.2)
    assert blood.error_share == pytest.approx(2 / 3)
    assert stroma.error_share == pytest.approx(1 / 3)
    assert blood.slope.per_label == pytest.approx((16 / 19 - 12 / 18) / 4)
    assert blood.next_gain == pytest.approx(1 - 16 / 19)  # the line would pass 1
    assert blood.macro_headroom == pytest.approx((1 - 16 / 19) / 2)
    assert (blood.mistaken_for, blood.mistaken_share) == ("Stroma", 1.0)
    assert (blood.tiles, blood.labelled, blood.left_in_pool) == (10, 4, 6)
    assert blood.trend == "unclear"  # 0.0439 per label with an error of 0.0381
    assert advice.decision.next_class == "Blood"
    assert advice.decision.sentence == (
        "Annotate Blood next: it holds 67% of what is still missed (mostly taken for Stroma). Another 4 labels, at the "
        "pace of the last 2 rounds, may bring its F1 from 0.84 to 1.00 (± 0.15, hardly more than noise)."
    )


def test_one_round_gives_a_class_but_no_slope(make_run: MakeRun) -> None:
    run = make_run(confusions={(1, "val"): [[6, 4], [2, 8]]})
    advice = advice_of(run)
    assert math.isnan(advice.next_labels)
    assert advice.decision.next_class == "Blood"
    assert "run another before deciding to stop" in advice.decision.sentence


def test_no_validation_set_gives_no_advice(make_run: MakeRun) -> None:
    assert advise(make_run(confusions={(1, "test"): [[6, 4], [2, 8]]})) is None


def test_a_model_that_misses_nothing_needs_no_more_labels(make_run: MakeRun) -> None:
    run = make_run(confusions={(1, "val"): [[9, 1], [0, 10]], (2, "val"): [[10, 0], [0, 10]]})
    assert advice_of(run).decision.verdict == "stop"
    assert "misses nothing" in advice_of(run).decision.sentence


def test_a_class_absent_from_the_validation_set_takes_no_share(make_run: MakeRun) -> None:
    advice = advice_of(make_run(confusions={(1, "val"): [[0, 0], [2, 8]], (2, "val"): [[0, 0], [1, 9]]}))
    shares = {entry_.name: entry_.error_share for entry_ in advice.classes}
    assert shares == {"Stroma": pytest.approx(1.0), "Blood": 0.0}
    assert math.isnan(advice.classes[1].fnr)


def test_false_negative_rates_are_counted_where_they_were_not_recorded(make_run: MakeRun) -> None:
    run = make_run()
    with sqlite3.connect(run.folder / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM metrics WHERE name LIKE '%_fnr'")
    assert advice_of(RunData.from_folder(run.folder)).classes[0].fnr == pytest.approx(0.2)


def test_large_rounds_quote_slopes_per_thousand_labels(make_run: MakeRun) -> None:
    run = make_run(cost=1000.0)
    assert advice_of(run).unit == 1000
    assert advice_of(run).next_labels == 4000


def test_the_largest_share_wins_while_the_average_rises() -> None:
    classes = (entry("Blood", 0.5, "hidden"), entry("Stroma", 0.3, "rising"), entry("Muscle", 0.2, "unclear"))
    decision = decide(classes, "rising", rounds_used=3, next_labels=25)
    assert decision.next_class == "Blood"
    assert "below the noise of its 40 validation tiles" in decision.sentence


def test_a_class_that_stands_still_is_passed_over() -> None:
    classes = (entry("Blood", 0.7, "flat"), entry("Stroma", 0.3, "rising"))
    decision = decide(classes, "rising", rounds_used=3, next_labels=25)
    assert decision.next_class == "Stroma"
    assert "may bring its F1 from 0.60 to 0.70 (± 0.01)" in decision.sentence


def test_a_falling_class_is_asked_for_even_when_the_average_stands_still() -> None:
    classes = (entry("Blood", 0.7, "hidden"), entry("Stroma", 0.3, "falling"))
    decision = decide(classes, "flat", rounds_used=3, next_labels=25)
    assert decision.next_class == "Stroma"
    assert "fell over the last 3 rounds" in decision.sentence


@pytest.mark.parametrize(("trend", "macro"), [("flat", "flat"), ("hidden", "flat"), ("flat", "rising")])
def test_the_advice_is_to_stop_when_nothing_moves(trend: Trend, macro: Trend) -> None:
    decision = decide((entry("Blood", 1.0, trend),), macro, rounds_used=3, next_labels=25)
    assert (decision.verdict, decision.next_class) == ("stop", None)
    assert decision.sentence == (
        "Stop: the last 3 rounds brought nothing that can be measured. Blood holds the largest part of what is still "
        "missed (mostly taken for Muscle): look at those tiles before labelling more of the same."
    )


def test_a_set_too_small_to_see_anything_is_said_to_be_so() -> None:
    classes = (entry("Blood", 0.7, "hidden"), entry("Stroma", 0.3, "hidden"))
    decision = decide(classes, "hidden", rounds_used=3, next_labels=25)
    assert (decision.verdict, decision.next_class) == ("stop", "Blood")
    assert decision.sentence == (
        "Stop, or measure better: the last 3 rounds brought less than the noise of this validation set. If you go on, "
        "annotate Blood: it holds 70% of what is still missed (mostly taken for Muscle)."
    )
    empty = decide((entry("Blood", 1.0, "hidden", left=0),), "hidden", rounds_used=3, next_labels=25)
    assert empty.sentence.endswith("and the pool holds nothing more of what is missed.")


def test_an_empty_pool_is_no_class_to_ask_for() -> None:
    classes = (entry("Blood", 0.7, "rising", left=0), entry("Stroma", 0.3, "rising"))
    assert decide(classes, "rising", rounds_used=3, next_labels=25).next_class == "Stroma"
    alone = decide(classes[:1], "rising", rounds_used=3, next_labels=25)
    assert (alone.verdict, alone.next_class) == ("exhausted", None)
    assert "No unlabelled Blood is left" in alone.sentence
    unknown = dataclasses.replace(classes[0], left_in_pool=None)  # in a real annotation run nobody knows
    assert decide((unknown,), "rising", rounds_used=3, next_labels=25).next_class == "Blood"
