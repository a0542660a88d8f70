# SPDX-License-Identifier: Apache-2.0
"""early_exit.yaml makes a gate for the model of a run, and says what it could not promise."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tests.bundles.bundle_files import BUNDLE, CONFIGS
from tral_monai.errors import CheckpointError
from tral_monai.inference.early_exit.early_exit_model import EarlyExitModel
from tral_monai.inference.early_exit.gate import ExitGate
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.bundle_run import run_workflow


@pytest.fixture
def checkpoint(run_folder, tmp_path):
    return shutil.copy(run_folder / "model.pt", tmp_path / "model.pt")


@pytest.fixture
def calibrate(tiny_cohort, checkpoint, tmp_path):
    def run(**overrides):
        settings = {"bundle_root": str(BUNDLE), "cohort": str(tiny_cohort), "output_dir": str(tmp_path / "out")}
        settings |= {"device": "$torch.device('cpu')", "checkpoint": str(checkpoint), **overrides}
        run_workflow([CONFIGS / "early_exit.yaml"], **settings)
        return ExitGate.load(tmp_path / "exit_gate.pt")

    return run


def test_the_gate_lies_beside_the_checkpoint_and_fits_it(calibrate, checkpoint, feature_dir, capsys):
    # 80 tiles to fit on and 34 to calibrate on are few, and the model is unsure of most of them.
    gate = calibrate(feature_dir=str(feature_dir), max_disagreement=0.9, undefined_below=0.0, damaged_at_least=0.0)
    network = load_checkpoint(checkpoint)
    assert EarlyExitModel(network, gate).settings()["exit_gate"]["sha256"] == gate.sha256
    assert gate.classes == network.classes
    val, test = gate.calibration["splits"]
    assert (val["split"], test["split"]) == ("val", "test")
    assert val["exited"] > val["tiles"] / 2
    assert val["disagreeing"] <= 0.9 * val["exited"]
    assert "differ of these" in capsys.readouterr().out


def test_inference_takes_the_gate_and_tells_how_many_exited(calibrate, checkpoint, feature_dir, tiny_cohort, tmp_path):
    rules = {"undefined_below": 0.0, "damaged_at_least": 0.0}
    gate = calibrate(feature_dir=str(feature_dir), max_disagreement=0.9, **rules)
    slide = sorted((tiny_cohort.parent / "slides").iterdir())[0]
    settings = {"bundle_root": str(BUNDLE), "checkpoint": str(checkpoint), "device": "$torch.device('cpu')", **rules}
    settings |= {"early_exit": str(tmp_path / "exit_gate.pt"), "min_agreement": 0.01, "agreement_tiles": 8}
    run_workflow([CONFIGS / "inference.yaml"], slides=str(slide), output_dir=str(tmp_path / "maps"), **settings)
    record = json.loads((tmp_path / "maps" / f"{slide.stem}.json").read_text())
    assert gate.sha256 in json.dumps(record)
    computed = record["result"]["computed"]
    assert 0 < computed["exited"] <= computed["tiles"]


def test_pixels_give_what_cached_features_give(calibrate, feature_dir):
    cached, computed = calibrate(feature_dir=str(feature_dir)), calibrate()
    for ours, theirs in zip(cached.calibration["splits"], computed.calibration["splits"], strict=True):
        assert ours["f1_macro_full"] == pytest.approx(theirs["f1_macro_full"], abs=1e-6)
        assert ours["disagreement_all_early"] == pytest.approx(theirs["disagreement_all_early"], abs=0.02)
    assert cached.temperature == pytest.approx(computed.temperature, rel=0.02)


def test_too_few_tiles_for_the_promise(calibrate, feature_dir, caplog):
    gate = calibrate(feature_dir=str(feature_dir), max_disagreement=0.001)
    assert gate.threshold is None
    assert "this gate lets no tile exit. Calibrate on more tiles, or allow a larger max_disagreement" in caplog.text
    assert [row["exited"] for row in gate.calibration["splits"]] == [0, 0]


def test_a_damaged_checkpoint_is_refused(calibrate, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    next(value for name, value in content["model"].items() if name.endswith("weight")).fill_(float("nan"))
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match="holds weights that are not finite"):
        calibrate()
