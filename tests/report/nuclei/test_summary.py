# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

from tral_monai.report.nuclei.run_data import NucleusRunData
from tral_monai.report.nuclei.summary import query_table, summary_table, three_lines, write_csvs

MakeRun = Callable[..., NucleusRunData]


def test_summary_worked_out_by_hand(make_run: MakeRun) -> None:
    run = make_run()
    summary, queries = write_csvs(run, run.folder)
    assert summary.read_text().splitlines() == [
        "round,images,boxes_drawn,minutes,map50,Tum_ap50,Lym_ap50,fp_on_unknown,known_queried,unknown_queried,purity",
        "1,2,5,0.500000,0.200000,0.300000,0.100000,1.000000,4,1,0.800000",
        "2,4,11,1.100000,0.300000,0.400000,0.200000,2.000000,1,2,0.333333",
        "3,5,14,1.400000,0.500000,0.600000,0.400000,3.000000,,,",
    ]
    assert queries.read_text().splitlines() == [
        "round,rank,sample_id,slide,x_level0,y_level0,score,reason,boxes_drawn,minutes,known,unknown,ignored",
        "1,0,0,field.png,0,0,0.9,pure and uncertain,4,0.4,2,1,1",
        "1,1,1,field.png,4,0,0.8,pure and uncertain,2,0.2,2,0,0",
        "2,0,2,field.png,8,0,0.9,pure and uncertain,3,0.3,1,2,0",
    ]


def test_a_run_without_any_evaluation_has_a_header_only(make_run: MakeRun) -> None:
    table = summary_table(make_run(scores={}, queried={}))
    assert table.empty
    assert list(table)[:4] == ["round", "images", "boxes_drawn", "minutes"]


def test_a_query_that_waits_for_answers_is_empty_not_zero(make_run: MakeRun) -> None:
    run = make_run(scores={(1, "test"): 0.2}, queried={1: [0, 1]}, answered=[])
    assert summary_table(run)["known_queried"].isna().tolist() == [True]
    table = query_table(run)
    assert table["sample_id"].tolist() == [0, 1]
    assert table["boxes_drawn"].isna().all()
    assert table["known"].isna().all()


def test_three_lines(make_run: MakeRun) -> None:
    spent, reached, coming = three_lines(make_run())
    assert spent == (
        "Spent: 5 images (2 to begin with, 3 asked for in 2 rounds), 14 boxes drawn, about 1 minute of annotation. "
        "Of 13 nuclei 4 were unknown. Strategy: osal_nd."
    )
    assert reached == "Reached: mAP@0.5 0.50 on test with 5 images (from 0.20 with 2); weakest class Lym (0.40)."
    assert coming.startswith("Next: There is no validation set")


def test_three_lines_against_another_run_at_equal_boxes(make_run: MakeRun) -> None:
    # The other run drew the same 14 boxes but has half the mAP.
    scores = {(1, "test"): 0.1, (2, "test"): 0.15, (3, "test"): 0.25}
    other = make_run("b", strategy="random", scores=scores)
    assert "With the same 14 boxes drawn: osal_nd 0.50, random 0.25 (mAP)." in three_lines(make_run("a"), [other])[1]


def test_three_lines_of_a_run_that_has_only_begun(make_run: MakeRun) -> None:
    lines = three_lines(make_run(scores={}, queried={}))
    assert lines == [
        "Spent: 2 images, 5 boxes drawn, about less than a minute of annotation. Of 5 nuclei 1 were unknown. "
        "Strategy: osal_nd.",
        "Reached: nothing has been evaluated yet.",
        "Next: nothing was evaluated yet, so there is no advice.",
    ]
