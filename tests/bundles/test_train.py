# SPDX-License-Identifier: Apache-2.0
"""train.yaml from end to end, on a frozen backbone's cached features and on pixels."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from tests.bundles.bundle_files import BLADDER, BUNDLE, CONFIGS, CPU, SMALL
from tral_monai.data.triplet_source import TripletSource
from tral_monai.errors import CheckpointError, CohortError, UnknownClassError
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.tri_cnn import TriCNN
from tral_monai.rounds.bundle_run import run_workflow

TRAIN = CONFIGS / "train.yaml"
COMMON = {"bundle_root": str(BUNDLE), "device": "$torch.device('cpu')", "verbose": False, "max_epochs": 2}


@pytest.fixture
def train(samples, tmp_path):
    def run(*overlays, **overrides):
        settings = {**COMMON, **samples, "output_dir": str(tmp_path / "out"), **overrides}
        return run_workflow([TRAIN, *overlays], **settings)

    return run


def loss_of(checkpoint, table):
    """Mean cross entropy of a checkpoint on a sample table, computed without the workflow."""
    network = load_checkpoint(checkpoint)
    rows = pd.read_parquet(table)
    labels = torch.tensor([network.classes.index(name) for name in rows["class"]])
    with torch.no_grad():
        logits = network(torch.from_numpy(TripletSource().read(rows)))
    return float(torch.nn.functional.cross_entropy(logits, labels))


def test_pixels_with_augmentation(train, samples, tmp_path):
    workflow = train(**SMALL, learning_rate=0.01, batch_size=4)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    assert trainer.state.epoch == 2
    assert len(trainer.prepare_batch.transforms) == 2
    network = load_checkpoint(tmp_path / "out" / "model.pt")
    assert network.classes == BLADDER
    assert not network.frozen
    # What is saved is the best epoch, and its loss is what the run says: no augmentation, dropout or batch statistics.
    assert evaluator.state.best_metric == pytest.approx(
        loss_of(tmp_path / "out" / "model.pt", samples["val_samples"]), rel=1e-4
    )


def test_the_seed_decides_and_augmentation_changes_what_is_learnt(train):
    def first_layer(**overrides):
        workflow = train(**SMALL, **{"learning_rate": 0.01, "batch_size": 4, "max_epochs": 1, "seed": 3, **overrides})
        return workflow.parser.get_parsed_content("network_def").state_dict()["branches.0.conv_stem.weight"]

    trained = first_layer()
    assert torch.equal(first_layer(), trained)
    assert not torch.equal(first_layer(augment=False), trained)
    untrained = first_layer(learning_rate=0.0)
    torch.manual_seed(3)
    assert torch.equal(TriCNN(BLADDER, **SMALL).state_dict()["branches.0.conv_stem.weight"], untrained)


def test_cached_features(train, samples, tmp_path, feature_dir, cpu_weights):
    workflow = train(CPU, **cpu_weights, feature_dir=str(feature_dir), max_epochs=2)
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    network = load_checkpoint(tmp_path / "out" / "model.pt")
    assert network.frozen
    assert network.feature_norm == "batch"
    assert list(feature_dir.rglob("*.npz"))
    assert evaluator.state.best_metric == pytest.approx(
        loss_of(tmp_path / "out" / "model.pt", samples["val_samples"]), rel=1e-3
    )


def test_dense_context(train, tmp_path):
    dense = {"backbone": "timm:tf_efficientnet_lite0", "hidden": [], "context": "dense"}
    train(**dense, batch_size=5, max_epochs=1)
    network = load_checkpoint(tmp_path / "out" / "model.pt")
    assert network.context == "dense"
    assert network.branch_widths == (1280, 240, 240)


def test_a_last_batch_of_one_sample_does_not_break_batch_normalisation(train, feature_dir, cpu_weights):
    # 9 samples in batches of 4 leave one over, whose variance is not defined: active learning with 33, 65, 97 ...
    # labels in batches of 32 ended in an error.
    workflow = train(CPU, **cpu_weights, feature_dir=str(feature_dir), batch_size=4, max_epochs=1)
    assert workflow.parser.get_parsed_content("train#trainer").state.iteration == 3


def test_training_stops_when_the_validation_loss_does(train, tmp_path, feature_dir, cpu_weights):
    # No step is taken, so that no epoch is better than the first: patience 3 ends with epoch 4.
    overrides = {"learning_rate": 0.0, "max_epochs": 50, "patience": 3, "feature_norm": "none", "optimizer_options": {}}
    workflow = train(CPU, **cpu_weights, feature_dir=str(feature_dir), **overrides)
    assert workflow.parser.get_parsed_content("train#trainer").state.epoch == 4


def test_it_goes_on_from_a_checkpoint(train, small_checkpoint, tmp_path):
    workflow = train(**SMALL, checkpoint=str(small_checkpoint), learning_rate=0.0, max_epochs=1, augment=False)
    ours = workflow.parser.get_parsed_content("network_def").state_dict()
    theirs = load_checkpoint(small_checkpoint).state_dict()
    for name in ("head.1.weight", "branches.2.conv_stem.weight"):
        torch.testing.assert_close(ours[name], theirs[name])


def test_it_refuses_a_checkpoint_whose_outputs_are_other_classes(train, small_checkpoint):
    with pytest.raises(CheckpointError, match="the outputs would be read as other classes"):
        train(**SMALL, checkpoint=str(small_checkpoint), classes=list(reversed(BLADDER)))


def test_it_refuses_samples_of_other_classes(train):
    with pytest.raises(UnknownClassError, match="the network knows only"):
        train(**SMALL, classes=["Stroma", "Muscle"])


def test_it_says_which_sample_table_is_missing(train, tmp_path):
    with pytest.raises(CohortError, match="there is no sample table .*none.parquet"):
        train(**SMALL, train_samples=str(tmp_path / "none.parquet"))
