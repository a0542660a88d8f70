# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tral_monai.errors import LedgerError
from tral_monai.report.nuclei.run_data import NucleusRunData, PoolRate, QueryYield

MakeRun = Callable[..., NucleusRunData]


def test_costs_of_what_each_model_was_trained_on(make_run: MakeRun) -> None:
    run = make_run()
    assert [run.spent("images", r) for r in (1, 2, 3)] == [2, 4, 5]
    assert [run.spent("boxes", r) for r in (1, 2, 3)] == [5, 11, 14]
    assert [run.spent("minutes", r) for r in (1, 2, 3)] == pytest.approx([0.5, 1.1, 1.4])  # 6 s for a box
    assert run.spent("boxes") == run.labels_spent == 14
    curve = run.cost_curve("map50", "test", "boxes")
    assert curve.rounds.tolist() == [1, 2, 3]
    assert curve.labels.tolist() == [5, 11, 14]
    assert curve.values.tolist() == [0.2, 0.3, 0.5]


def test_answers_by_round(make_run: MakeRun) -> None:
    run = make_run()
    assert run.yields == {
        0: QueryYield(2, 4, 1, 0, 5.0, pytest.approx(0.5), (3, 1)),
        1: QueryYield(2, 4, 1, 1, 6.0, pytest.approx(0.6), (1, 3)),
        2: QueryYield(1, 1, 2, 0, 3.0, pytest.approx(0.3), (1, 0)),
    }
    assert list(run.queried) == [1, 2]
    assert run.yields[1].purity == pytest.approx(4 / 5)
    assert run.class_counts(1).tolist() == [3, 1]
    assert run.class_counts(3).tolist() == [5, 4]
    assert math.isnan(QueryYield(1, 0, 0, 3, 3.0, 0.3, (0, 0)).purity)


def test_the_pool_that_a_query_was_made_from(make_run: MakeRun) -> None:
    run = make_run()
    # All six pool fields hold 9 known and 5 unknown nuclei; the test field's do not count.
    assert run.pool_rate(0) == PoolRate(6, 9, 5)
    assert run.pool_rate(1) == PoolRate(4, 5, 4)
    assert run.pool_rate(2) == PoolRate(2, 1, 3)
    rate = run.pool_rate(2)
    assert rate is not None
    assert rate.purity == 0.25
    assert rate.known_per_image == 0.5
    assert math.isnan(PoolRate(0, 0, 0).known_per_image)


def test_a_pool_that_nobody_knows(make_run: MakeRun) -> None:
    assert make_run(table=False).pool_rate(1) is None
    # All fields with nuclei are labelled: what is left in the pool shows none.
    run = make_run("b", queried={1: [0, 1], 2: [2, 3]})
    assert run.pool_rate(3) is None


def test_a_class_on_neither_side_counts_for_nothing(make_run: MakeRun) -> None:
    # Lym is neither known nor unknown here: of the pool only Tum (5) and Mac (5) count.
    run = make_run(classes=["Tum", "Pla"])
    table = run.fovs
    assert table is not None
    names = [tuple("Lym" if name == "Pla" else name for name in row) for row in table["classes"]]
    run.__dict__["fovs"] = table.assign(classes=names)
    assert run.pool_rate(0) == PoolRate(6, 5, 5)


def test_names_of_the_setting(make_run: MakeRun) -> None:
    run = make_run()
    assert (run.open_set, run.unknown_classes, run.fold, run.folds) == ("2+1", ("Mac",), 0, None)
    listed = make_run("b", info={"index_settings": {"open_set": None, "known": ["Tum", "Lym"], "folds": 4}})
    assert (listed.open_set, listed.folds) == ("2+1", 4)
    named = make_run("c", info={"index_settings": {"open_set": "5+2"}})
    assert named.open_set == "5+2"


def test_a_table_that_is_none_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    (run.folder / "fovs.parquet").write_bytes(b"no parquet")
    with pytest.raises(LedgerError, match="run: fovs.parquet is not a parquet table.*delete the file"):
        _ = NucleusRunData.from_folder(run.folder).fovs
