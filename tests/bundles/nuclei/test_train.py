# SPDX-License-Identifier: Apache-2.0
"""train.yaml: what active learning, MONAI Label and a person train a detector with."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from tests.bundles.bundle_files import NUCLEI, read
from tests.bundles.nuclei.disc_fields import FIELD_PX, KNOWN, MPP, TINY, TRAIN
from tral_monai.data.nuclei.fov_table import read_fovs
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import CheckpointError, CohortError, ConfigError, UnknownClassError
from tral_monai.metrics.detection import detection_metrics, truth_of
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.rounds.bundle_run import run_workflow


@pytest.fixture
def train(training, tmp_path):
    def run(**overrides):
        return run_workflow([TRAIN], **{**training, "val_samples": None, "output_dir": str(tmp_path), **overrides})

    return run


def weights(workflow):
    return workflow.parser.get_parsed_content("network_def").state_dict()


def test_it_learns_and_measures_the_detector_that_it_saves(trained, samples):
    folder, workflow = trained
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    table = read_fovs(samples["val_samples"])
    images = [FovReader().read(row) for _, row in table.iterrows()]
    network = load_checkpoint(folder / "model.pt")
    metrics = detection_metrics(detect(network, images).detections, *truth_of(table, OpenSet(KNOWN)), KNOWN)
    assert evaluator.state.key_metric_name == "map50"
    assert evaluator.state.metrics == pytest.approx(metrics, abs=1e-4, nan_ok=True)
    # Discs of two colours on an even ground are easy; a detector that learns nothing has an mAP of some hundredths.
    assert metrics["map50"] > 0.5
    assert network.classes == KNOWN
    assert (network.settings.fov_mpp, network.settings.fov_px) == (MPP, FIELD_PX)


def test_the_seed_decides_and_augmentation_changes_what_is_learnt(train):
    first = weights(train(seed=3))
    again, other, plain = weights(train(seed=3)), weights(train(seed=4)), weights(train(seed=3, augment=False))
    name = next(name for name in first if name.startswith("roi_heads") and name.endswith("weight"))
    assert all(torch.equal(again[key], first[key]) for key in first)
    assert not torch.equal(other[name], first[name])
    assert not torch.equal(plain[name], first[name])


def test_nothing_but_the_seed_decides_the_weights_that_it_starts_from(train):
    torch.manual_seed(99)
    untrained = weights(train(seed=3, learning_rate=0.0, optimizer_options={}))
    network = OpenSetRCNN(KNOWN, backbone="timm:mobilenetv3_small_050", seed=3, fov_mpp=MPP, fov_px=FIELD_PX, **TINY)
    parameters = dict(network.named_parameters())
    assert all(torch.equal(untrained[name], value) for name, value in parameters.items())


@pytest.mark.parametrize(
    ("role", "outputs"),
    [("target", KNOWN), ("prototype", ("known", "unknown")), ("k_plus_one", (*KNOWN, "unknown"))],
)
def test_the_three_roles(role, outputs, train, tmp_path):
    workflow = train(role=role, loss_prediction=role == "target", head="softmax")
    network = load_checkpoint(tmp_path / "model.pt")
    assert (network.role, network.outputs) == (role, outputs)
    losses = workflow.parser.get_parsed_content("train#trainer").state.output["losses"]
    assert ("loss_prototype" in losses) == (role == "prototype")
    assert ("loss_prediction" in losses) == (role == "target")
    if role == "prototype":
        assert network.prototypes.ready.tolist() == [True, True]


def test_the_papers_prototypes_live_among_the_roi_features(train, tmp_path):
    options = {**TINY, **read(NUCLEI.overlay_folder / "paper.yaml")["network_options"]}
    workflow = train(role="prototype", network_options=options)
    network = load_checkpoint(tmp_path / "model.pt")
    assert network.prototypes.points.shape == (2, TINY["representation"])
    losses = workflow.parser.get_parsed_content("train#trainer").state.output["losses"]
    assert 0 < losses["loss_prototype"] < float("inf")


def test_an_epoch_is_a_number_of_updates_and_goes_round_the_samples(train):
    # Eight samples; 4 x 5 of them are drawn: each once, then all again, so that no batch is short.
    workflow = train(updates_per_epoch=5, max_epochs=2)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 10)
    ids = [[item["id"] for item in batch] for batch in workflow.parser.get_parsed_content("train#dataloader")]
    assert [len(batch) for batch in ids] == [4] * 5
    assert len(set(ids[0] + ids[1])) == len(set(ids[2] + ids[3])) == 8


def test_the_learning_rate_rises_and_falls(train):
    workflow = train(updates_per_epoch=10, max_epochs=2, learning_rate=1.0e-3)
    optimizer = workflow.parser.get_parsed_content("optimizer")
    assert 0 < optimizer.param_groups[0]["lr"] < 1.0e-5


def test_it_goes_on_from_a_checkpoint(train, trained):
    start = load_checkpoint(trained[0] / "model.pt").state_dict()
    ours = weights(train(checkpoint=str(trained[0] / "model.pt"), learning_rate=0.0, optimizer_options={}, seed=5))
    parameters = [name for name in start if name.endswith("weight") and "bn" not in name]
    assert len(parameters) > 20
    for name in parameters:
        torch.testing.assert_close(ours[name], start[name])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"classes": list(reversed(KNOWN))}, "classes: .*the outputs would be read as other classes"),
        ({"role": "prototype"}, "role: the checkpoint has 'target', this network 'prototype'"),
        ({"fov_mpp": 0.25}, "fov_mpp: .*nuclei of another size"),
    ],
)
def test_it_refuses_a_checkpoint_that_means_something_else(overrides, message, train, trained):
    with pytest.raises(CheckpointError, match=message):
        train(checkpoint=str(trained[0] / "model.pt"), **overrides)


def test_it_refuses_samples_of_other_classes(train):
    with pytest.raises(UnknownClassError, match=r"the classes \['lymphocyte'\] are neither known \['tumour'\]"):
        train(classes=["tumour"])


def test_it_says_which_table_is_missing(train, tmp_path):
    with pytest.raises(CohortError, match="none.parquet"):
        train(train_samples=str(tmp_path / "none.parquet"))


def test_an_unknown_size_is_named(train):
    with pytest.raises(ConfigError, match="a detector has no setting 'fpn_chanels'; near it: fpn_channels"):
        train(network_options={**TINY, "fpn_chanels": 8})


def test_a_short_list_as_a_label_server_gives_it(train, disc_fields, tmp_path):
    entry = {"image": str(disc_fields / "field_00.png"), "mpp": MPP}
    listed = [{**entry, "boxes": [[10, 10, 20, 20], [30, 30, 42, 42]], "classes": ["tumour", "unknown"]}]
    workflow = train(train_samples=listed, batch_size=1, updates_per_epoch=1)
    dataset = workflow.parser.get_parsed_content("train#dataset")
    assert pd.Series(dataset.table["classes"].iloc[0]).tolist() == ["tumour", "unknown"]
    assert (tmp_path / "model.pt").is_file()
