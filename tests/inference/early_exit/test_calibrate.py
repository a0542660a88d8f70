# SPDX-License-Identifier: Apache-2.0
"""Calibration on features made by hand; tests/bundles/test_early_exit.py calibrates a trained network."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from tests.inference.early_exit.small_networks import CLASSES, small_network
from tral_monai.data.triplet_dataset import TripletDataset
from tral_monai.errors import ConfigError
from tral_monai.inference.early_exit.calibrate import ExitCalibration, TileAnswers, report_table

SURE = 0.97


def answers(
    seen: Sequence[int], said: Sequence[int], truth: Sequence[int] | None = None, sure: Sequence[float] | float = SURE
) -> TileAnswers:
    """Tiles that look like class ``seen`` at low magnification, of which the full model says ``said``."""
    n = len(seen)
    probabilities = ((1 - torch.as_tensor(sure).expand(n)) / 2)[:, None].repeat(1, 3)
    probabilities[torch.arange(n), list(said)] = torch.as_tensor(sure).expand(n)
    labels = np.asarray(truth if truth is not None else said, dtype=np.int64)
    return TileAnswers(10 * torch.eye(3)[list(seen)], probabilities, labels)


def tiles(n: int = 3) -> TripletDataset:
    columns = {"slide_path": "a.tif", "slide_mpp": 0.25, "x_level0": range(n), "y_level0": 0}
    return TripletDataset(pd.DataFrame(columns), CLASSES)


def calibration(**settings) -> ExitCalibration:
    settings = {"gate_path": None, "max_disagreement": 0.05, **settings}
    return ExitCalibration(small_network(), tiles(), tiles(), **settings)


TRAIN = answers([0, 1, 2] * 100, [0, 1, 2] * 100)


def test_what_a_gate_does_is_measured_on_each_split():
    # Of four test tiles the full model takes the second, a Stroma, for Muscle; F1 2/3 and 4/5.
    test = answers([0, 0, 1, 1], [0, 1, 1, 1], truth=[0, 0, 1, 1])
    gate = calibration().calibrate({"train": TRAIN, "val": answers([0, 1] * 100, [0, 1] * 100), "test": test})
    val, found = gate.calibration["splits"]
    assert (val["split"], val["tiles"], val["exited"], val["disagreeing"], val["disagreement"]) == (
        "val",
        200,
        200,
        0,
        0,
    )
    assert (found["split"], found["tiles"], found["exited"], found["coverage"]) == ("test", 4, 4, 1.0)
    assert (found["disagreeing"], found["disagreement"], found["disagreement_all_early"]) == (1, 0.25, 0.25)
    assert found["f1_macro_full"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert (found["f1_macro_gated"], found["f1_macro_early"]) == (1.0, 1.0)
    assert gate.calibration["upper_bound"] == pytest.approx(1 - 0.05 ** (1 / 200))
    assert gate.calibration["fit_tiles"] == 300
    assert (gate.magnifications, gate.context, gate.classes) == ((10.0, 2.5), "tile", CLASSES)


def test_only_classes_that_agree_exit():
    # What looks like Damaged from afar is Stroma or Damaged; the exit head, less sure there, asks for 40x.
    seen, said = [0, 1, 2, 2] * 100, [0, 1, 2, 0] * 100
    gate = calibration().calibrate({"train": answers(seen, said), "val": answers(seen, said)})
    (val,) = gate.calibration["splits"]
    assert (val["exited"], val["disagreeing"]) == (200, 0)
    exits = gate.exits(gate.log_probabilities(10 * torch.eye(3)))
    assert exits.tolist() == [True, True, False]


@pytest.mark.parametrize(("undefined_below", "exited"), [(0.5, 400), (0.6, 0)])
def test_agreement_is_about_what_the_map_shows(undefined_below, exited):
    # The full model says Stroma everywhere, but at every other tile with 0.55: undefined in a map that asks for 0.6.
    val = answers([0] * 400, [0] * 400, sure=torch.tensor([SURE, 0.55] * 200))
    gate = calibration(undefined_below=undefined_below).calibrate({"train": TRAIN, "val": val})
    (row,) = gate.calibration["splits"]
    assert row["exited"] == exited
    assert row["disagreement_all_early"] == (0.0 if exited else 0.5)
    assert (gate.undefined_below, gate.damaged_at_least) == (undefined_below, 0.9)
    assert (gate.threshold is None) == (exited == 0)


def test_tiles_without_a_label_have_no_f1():
    gate = calibration().calibrate({"train": TRAIN, "val": answers([0] * 100, [0] * 100, truth=[-1] * 100)})
    (row,) = gate.calibration["splits"]
    assert (row["f1_macro_full"], row["f1_macro_gated"], row["f1_macro_early"]) == (None, None, None)


def test_the_table():
    val = answers([0, 1] * 100, [0, 1] * 100)
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(report_table(calibration().calibrate({"train": TRAIN, "val": val})))
    shown = console.export_text()
    assert "Early exit from 10x and 2.5x: threshold 0.9" in shown
    assert "at most 5.00% of exited tiles unlike the full model" in " ".join(shown.split())
    (line,) = (line for line in shown.splitlines() if "val" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["val", "200", "200 (100.0%)", "0 (0.0%)", "100.0%", "100.0%", "100.0%"]


def test_a_split_without_tiles():
    with pytest.raises(
        ConfigError, match="an exit gate needs tiles to calibrate it on .split val., but there are none; check"
    ):
        ExitCalibration(small_network(), tiles(), tiles(0), gate_path=None)


def test_a_network_of_one_magnification():
    with pytest.raises(ConfigError, match="early exit needs a network with several magnifications"):
        ExitCalibration(small_network(magnifications=(10,)), tiles(), tiles(), gate_path=None)
