# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tral_monai.errors import ConfigError, LedgerError
from tral_monai.metrics.comparison import paired_t_test
from tral_monai.report.nuclei.run_data import NucleusRunData
from tral_monai.report.nuclei.strategy_table import strategy_table

MakeRun = Callable[..., NucleusRunData]


def rising(last: float) -> dict[tuple[int, str], float]:
    return {(1, "test"): 0.2, (2, "test"): 0.3, (3, "test"): last}


def test_rows_means_and_pairs_by_hand(make_run: MakeRun) -> None:
    runs = [
        make_run("o0", scores=rising(0.5)),
        make_run("o1", scores=rising(0.7), seed=1),
        make_run("r0", strategy="random", scores=rising(0.4)),
        make_run("r1", strategy="random", scores=rising(0.5), seed=1),
    ]
    per_run, per_strategy, text = strategy_table([run.folder for run in runs])
    assert per_run["strategy"].tolist() == ["osal_nd", "osal_nd", "random", "random"]
    assert per_run["boxes_drawn"].tolist() == [14] * 4
    # Between 5 and 14 boxes: 6 * 0.25, then 3 * the mean of 0.3 and the last, over 9.
    assert per_run["aulc_boxes"].tolist() == pytest.approx(
        [(1.5 + 3 * (0.3 + x) / 2) / 9 for x in (0.5, 0.7, 0.4, 0.5)]
    )
    assert per_run["map50_at_equal_boxes"].tolist() == pytest.approx([0.5, 0.7, 0.4, 0.5])
    assert per_run["known_queried"].tolist() == [5] * 4
    assert per_run["purity"].tolist() == pytest.approx([5 / 8] * 4)
    assert per_run["fp_on_unknown"].tolist() == [3] * 4
    row = per_strategy.set_index("strategy").loc["osal_nd"]
    assert row["map50_mean"] == pytest.approx(0.6)
    assert row["map50_sd"] == pytest.approx(0.2 / math.sqrt(2))
    test = paired_t_test([0.5, 0.7], [0.4, 0.5])
    assert row["map50_minus_random"] == pytest.approx(0.15)
    assert (row["map50_low"], row["map50_high"]) == pytest.approx(test.confidence_interval)
    assert row["map50_p"] == pytest.approx(test.p_value)
    lines = text.splitlines()
    assert lines[0].endswith("over 2 to 5 images labelled, 5 to 14 boxes drawn, 0 to 1 annotator minutes.")
    assert lines[4].startswith("| `osal_nd` | 2 | 60.0 ± 14.1 |")
    assert lines[4].endswith("| 5 ± 0 | 62.5 ± 0.0 | 3.0 ± 0.0 |")
    assert lines[5].startswith("| `random` | 2 | 45.0 ± 7.1 |")
    assert any(line.startswith("| `osal_nd` | +15.0 (") for line in lines)


def test_folds_widen_the_interval(make_run: MakeRun) -> None:
    runs = [
        make_run("o0", scores=rising(0.5)),
        make_run("o1", scores=rising(0.7), fold=1),
        make_run("r0", strategy="random", scores=rising(0.4)),
        make_run("r1", strategy="random", scores=rising(0.5), fold=1),
    ]
    _, per_strategy, text = strategy_table([run.folder for run in runs])
    row = per_strategy.set_index("strategy").loc["osal_nd"]
    expected = paired_t_test([0.5, 0.7], [0.4, 0.5], test_train_ratio=1.0)  # two folds: each as large as the other
    assert (row["map50_low"], row["map50_high"]) == pytest.approx(expected.confidence_interval)
    assert "widened for the folds' common training fields" in text


def test_without_a_control_or_with_one_seed_nothing_is_paired(make_run: MakeRun) -> None:
    first, second = make_run("a"), make_run("b", strategy="density")
    _, table, text = strategy_table([first.folder, second.folder])
    assert not [name for name in table if "minus" in str(name)]
    assert "Difference" not in text
    assert "± " not in text.splitlines()[4]
    _, table, _ = strategy_table([first.folder, second.folder], control="density")
    assert not [name for name in table if "minus" in str(name)]


def test_a_strategy_with_other_seeds_is_left_unpaired(make_run: MakeRun) -> None:
    runs = [make_run(f"{s}{i}", strategy=s, seed=i) for s in ("osal_nd", "random") for i in (0, 1)]
    runs.append(make_run("density5", strategy="density", seed=5))
    _, table, text = strategy_table([run.folder for run in runs])
    own = table.set_index("strategy")["map50_minus_random"]
    assert own["osal_nd"] == 0
    assert math.isnan(own["density"])
    assert sum(line.startswith("| `density`") for line in text.splitlines()) == 1


def test_runs_that_cannot_be_compared(make_run: MakeRun) -> None:
    run = make_run("a")
    with pytest.raises(ConfigError, match="needs two evaluated runs or more, but of 1"):
        strategy_table([run.folder])
    with pytest.raises(LedgerError, match="same open-set setting"):
        strategy_table([run.folder, make_run("b", classes=["Tum", "Pla"]).folder])
