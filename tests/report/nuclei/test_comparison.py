# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tral_monai.errors import LedgerError
from tral_monai.report.nuclei.comparison import compare, fold_ratio, known_curve
from tral_monai.report.nuclei.run_data import NucleusRunData

MakeRun = Callable[..., NucleusRunData]
LOW = {(1, "test"): 0.1, (2, "test"): 0.2, (3, "test"): 0.3}
# Another choice of fields: boxes 5, 6, 9 (field 3 has one nucleus, field 2 three) after 2, 3 and 4 images.
OTHER = {1: [3], 2: [2]}


def test_areas_at_equal_cost_by_hand(make_run: MakeRun) -> None:
    comparison = compare([make_run("a"), make_run("b", strategy="random", scores=LOW, queried=OTHER)])
    assert comparison is not None
    images, boxes = comparison.axes["images"], comparison.axes["boxes"]
    assert images.common == (2.0, 4.0)
    assert boxes.common == (5.0, 9.0)
    # Images: a has 0.2 at 2 and 0.3 at 4, mean 0.25; b 0.1, 0.2, 0.3 at 2, 3, 4, mean 0.2.
    assert [band.strategy for band in images.bands] == ["osal_nd", "random"]
    assert [band.areas for band in images.bands] == [(pytest.approx(0.25),), (pytest.approx(0.2),)]
    assert [band.finals for band in images.bands] == [(pytest.approx(0.3),), (pytest.approx(0.3),)]
    # Boxes: a rises from 0.2 at 5 to 0.2 + 0.1 * 4/6 at 9; b: (0.15 * 1 + 0.25 * 3) / 4.
    assert [band.areas for band in boxes.bands] == [(pytest.approx(0.2 + 0.1 / 3),), (pytest.approx(0.225),)]
    assert boxes.bands[0].finals == (pytest.approx(0.2 + 0.2 / 3),)
    assert "A strategy with a single run has no spread: a difference may be chance." in comparison.notes


def test_mean_and_deviation_over_runs(make_run: MakeRun) -> None:
    comparison = compare([make_run("a"), make_run("b", seed=1, scores=LOW)])
    assert comparison is not None
    (band,) = comparison.axes["boxes"].bands
    assert band.cost.tolist() == [5, 11, 14]
    assert band.mean.tolist() == pytest.approx([0.15, 0.25, 0.4])
    assert band.sd is not None
    assert band.sd.tolist() == pytest.approx([0.1 / np.sqrt(2), 0.1 / np.sqrt(2), 0.2 / np.sqrt(2)])
    assert band.final_mean == pytest.approx(0.4)
    assert [run.name for run in comparison.runs] == ["a", "b"]


def test_known_nuclei_gathered(make_run: MakeRun) -> None:
    curve = known_curve(make_run())
    assert curve.labels.tolist() == [2, 4, 5]
    assert curve.values.tolist() == [4, 8, 9]


def test_fewer_than_two_evaluated_runs(make_run: MakeRun) -> None:
    run = make_run("a")
    assert compare([run]) is None
    assert compare([run, make_run("b", scores={}, queried={})]) is None
    three = compare([run, make_run("c", seed=1), make_run("d", scores={}, queried={})])
    assert three is not None
    assert three.notes[0] == "d was not evaluated on test and is left out."


def test_other_classes_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(LedgerError, match="same open-set setting: a knows .'Tum', 'Lym'. .* b knows .'Tum', 'Pla'."):
        compare([make_run("a"), make_run("b", classes=["Tum", "Pla"])])


def test_runs_that_share_no_cost(make_run: MakeRun) -> None:
    first = make_run("a", scores={(1, "test"): 0.2})
    second = make_run("b", scores={(3, "test"): 0.2})
    comparison = compare([first, second])
    assert comparison is not None
    assert comparison.axes["images"].common is None
    assert "share no number of images" in " ".join(comparison.notes)


def test_the_ratio_of_folds(make_run: MakeRun) -> None:
    first = make_run("a", info={"index_settings": {"folds": 5, "fold": 0}})
    assert fold_ratio([first, make_run("b", seed=1)]) is None
    assert fold_ratio([first, make_run("c", fold=1)]) == 0.25
    assert fold_ratio([make_run("d"), make_run("e", fold=1), make_run("f", fold=2)]) == 0.5
