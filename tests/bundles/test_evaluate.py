# SPDX-License-Identifier: Apache-2.0
"""evaluate.yaml measures what an active-learning run measured, and says what it cannot measure."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from tests.bundles.bundle_files import BUNDLE, CONFIGS
from tral_monai.errors import CheckpointError, CohortError, UnknownClassError
from tral_monai.file_hash import file_sha256
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.bundle_run import run_workflow
from tral_monai.rounds.ledger import Ledger


@pytest.fixture
def evaluate(tiny_cohort, tmp_path):
    def run(checkpoint, **overrides):
        settings = {"bundle_root": str(BUNDLE), "cohort": str(tiny_cohort), "output_dir": str(tmp_path / "out")}
        settings |= {"device": "$torch.device('cpu')", "checkpoint": str(checkpoint), **overrides}
        run_workflow([CONFIGS / "evaluate.yaml"], **settings)
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return run


@pytest.mark.parametrize("split", ["val", "test"])
def test_it_agrees_with_the_run_that_made_the_model(split, evaluate, run_folder, feature_dir):
    checkpoint = run_folder / "rounds" / "round_002" / "model.pt"
    result = evaluate(checkpoint, split=split, feature_dir=str(feature_dir))
    with Ledger(run_folder / "ledger.sqlite") as ledger:
        matrix = ledger.confusion(2, split, result["classes"])
    assert result["confusion"] == [list(row) for row in matrix]
    row = pd.read_csv(run_folder / "summary.csv").query(f"round == 2 and split == '{split}'").iloc[0]
    assert result["f1_macro"] == pytest.approx(row["f1_macro"], abs=1e-6)
    assert result["f1_micro"] == pytest.approx(row["f1_micro"], abs=1e-6)
    assert result["per_class"]["Stroma"]["f1"] == pytest.approx(row["Stroma_f1"], abs=1e-6)
    assert result["n"] == sum(map(sum, result["confusion"]))
    assert result["checkpoint"] == {"name": "model.pt", "sha256": file_sha256(checkpoint)}
    assert (result["info"]["split"], result["info"]["slides"], result["info"]["patients"]) == (split, 1, 1)


def test_pixels_give_what_cached_features_give(evaluate, run_folder, feature_dir, capsys):
    cached = evaluate(run_folder / "model.pt", feature_dir=str(feature_dir))
    pixels = evaluate(run_folder / "model.pt")
    assert pixels["confusion"] == cached["confusion"]
    shown = capsys.readouterr().out
    assert "micro" in shown
    assert "Urothelium" in shown


def test_an_empty_split(evaluate, run_folder, tiny_cohort, tmp_path):
    with pytest.raises(CohortError, match="cohort.csv has no row in split 'pool'; its rows are in the splits"):
        evaluate(run_folder / "model.pt", split="pool")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_class_that_the_network_does_not_know(evaluate, tmp_path):
    path = save_checkpoint(
        tmp_path / "model.pt",
        TriCNN(["Blood", "Muscle"], backbone="timm:mobilenetv3_small_050", hidden=(), seed=0),
    )
    with pytest.raises(UnknownClassError, match=r"'Stroma', 'Urothelium'\], but the network knows only \['Blood'"):
        evaluate(path)


def test_no_checkpoint(evaluate, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint .*none.pt"):
        evaluate(tmp_path / "none.pt")
