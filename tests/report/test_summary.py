# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tral_monai.report.run_data import RunData
from tral_monai.report.summary import count, duration, number, score, three_lines, write_csvs

MakeRun = Callable[..., RunData]


def test_summary_csv_line_by_line(make_run: MakeRun, tmp_path: Path) -> None:
    summary, _ = write_csvs(make_run(), tmp_path)
    assert summary.read_text().splitlines() == [
        "round,split,labels,Blood_f1,Stroma_f1,f1_micro,f1_macro",
        "1,val,4,0.666667,0.727273,0.700000,0.696970",
        "1,test,4,0.500000,0.750000,0.666667,0.625000",
        "2,val,8,0.842105,0.857143,0.850000,0.849624",
        "2,test,8,0.736842,0.878049,0.833333,0.807445",
    ]


def test_queries_csv_line_by_line(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(asked=["Blood", None, "Blood", "Stroma"], given=["Blood", "Stroma", None, "Stroma"])
    _, queries = write_csvs(run, tmp_path)
    assert queries.read_text().splitlines() == [
        "round,slide,x_level0,y_level0,class_asked,class_given,score",
        "1,slide.png,300,200,Blood,Blood,0.9",
        "1,slide.png,600,200,,Stroma,0.8",
        "1,slide.png,300,600,Blood,,0.7",
        "1,slide.png,600,600,Stroma,Stroma,0.6",
    ]


def test_names_with_commas_and_quotes_survive(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(classes=['Blood, "fresh"', "Stroma\nloose"], slide="a,b.png")
    summary, queries = write_csvs(run, tmp_path)
    assert list(pd.read_csv(summary).columns[3:5]) == ['Blood, "fresh"_f1', "Stroma\nloose_f1"]
    assert set(pd.read_csv(queries)["slide"]) == {"a,b.png"}


def test_undefined_scores_are_empty_cells(make_run: MakeRun, tmp_path: Path) -> None:
    summary, _ = write_csvs(make_run(confusions={(1, "val"): [[0, 0], [0, 8]]}), tmp_path)
    assert summary.read_text().splitlines()[1] == "1,val,4,,1.000000,1.000000,1.000000"


def test_csvs_of_a_run_without_rounds_hold_their_headings(make_run: MakeRun, tmp_path: Path) -> None:
    summary, queries = write_csvs(make_run(confusions={}, asked=[]), tmp_path)
    assert summary.read_text() == "round,split,labels,Blood_f1,Stroma_f1,f1_micro,f1_macro\n"
    assert queries.read_text() == "round,slide,x_level0,y_level0,class_asked,class_given,score\n"


def test_three_lines_of_the_small_run(make_run: MakeRun) -> None:
    spent, reached, following = three_lines(make_run())
    assert spent == (
        "Spent: 8 labels (4 to begin with, 4 asked for in 1 round), about 4 minutes of annotation. "
        "Strategy: tri_al_quota."
    )
    assert reached == (
        "Reached: macro F1 0.81 on test with 8 labels (from 0.62 with 4), micro F1 0.83; weakest class Blood (0.74)."
    )
    assert following.startswith("Next: Annotate Blood next: it holds 67%")


def test_three_lines_name_rivals_at_equal_labels(make_run: MakeRun) -> None:
    weak = {(1, "test"): [[5, 5], [10, 10]], (2, "test"): [[5, 5], [10, 10]]}
    lines = three_lines(make_run("a"), [make_run("b", strategy="random", confusions=weak)])
    assert lines[1].endswith("With the same 8 labels: tri_al_quota 0.81, random 0.49 (macro F1).")


def test_three_lines_say_which_model_was_published(make_run: MakeRun) -> None:
    line = three_lines(make_run(info={"published_round": 1}))[1]
    assert "model.pt is that of round 1 (macro F1 0.62)" in line
    assert "model.pt" not in three_lines(make_run("last", info={"published_round": 2}))[1]


def test_three_lines_before_anything_was_evaluated(make_run: MakeRun) -> None:
    lines = three_lines(make_run(confusions={}, asked=[]))
    assert lines == [
        "Spent: 4 labels, about 2 minutes of annotation. Strategy: tri_al_quota.",
        "Reached: nothing has been evaluated yet.",
        "Next: nothing was evaluated on the validation set, so there is no advice yet.",
    ]


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.4, "less than a minute"), (1.2, "1 minute"), (45, "45 minutes"), (89.4, "89 minutes"), (150, "2.5 hours")],
)
def test_durations(minutes: float, text: str) -> None:
    assert duration(minutes) == text


def test_numbers() -> None:
    assert (number(205000), number(2.5)) == ("205,000", "2.5")
    assert (count(1, "label"), count(0, "label")) == ("1 label", "0 labels")
    assert (score(0.875), score(float("nan"))) == ("0.88", "\N{EN DASH}")
