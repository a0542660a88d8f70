# SPDX-License-Identifier: Apache-2.0
"""The ids by which MONAI's programs, and MONAI Label, reach into the workflows."""

from __future__ import annotations

from tests.bundles.bundle_files import initialized
from tests.bundles.nuclei.disc_fields import ACTIVE_LEARNING, EVALUATE, INFERENCE, KNOWN, MPP, SMALL, TRAIN
from tral_monai.data.nuclei.dataset import NucleusDataset
from tral_monai.inference.slide_evaluator import SlideEvaluator


def test_training(training, tmp_path):
    workflow = initialized([TRAIN], "train", **{**training, "max_epochs": 7, "output_dir": str(tmp_path)})
    assert workflow.check_properties() == []
    assert workflow.max_epochs == 7
    assert isinstance(workflow.train_dataset, NucleusDataset)
    assert workflow.train_dataset_data == training["train_samples"]
    assert list(workflow.val_key_metric) == ["map50"]
    assert isinstance(workflow.train_handlers, list)  # MONAI Label appends its own
    assert workflow.channel_def["0"] == "background"


def test_training_without_validation(training, tmp_path):
    workflow = initialized([TRAIN], "train", **{**training, "val_samples": None, "output_dir": str(tmp_path)})
    assert workflow.check_properties() == []
    assert workflow.parser.get_parsed_content("validate#evaluator") is None


def test_evaluation(disc_fields, run_folder, tmp_path):
    workflow = initialized(
        [EVALUATE],
        "infer",
        dataset_name="coco",
        dataset_dir=str(disc_fields),
        folds=3,
        fov_px=None,
        output_dir=str(tmp_path),
        checkpoint=str(run_folder / "model.pt"),
    )
    assert workflow.check_properties() == []
    assert isinstance(workflow.dataset, NucleusDataset)
    assert list(workflow.key_metric) == ["map50"]


def test_inference(disc_fields, run_folder, tmp_path):
    settings = {"images": str(disc_fields), "mpp": MPP, "overlap_px": 24, "output_dir": str(tmp_path / "nuclei")}
    workflow = initialized([INFERENCE], "infer", checkpoint=str(run_folder / "model.pt"), **settings)
    assert workflow.check_properties() == []
    assert isinstance(workflow.evaluator, SlideEvaluator)
    assert len(workflow.dataset) == 12
    assert workflow.version == "0.1.0"


def test_active_learning_has_what_a_server_looks_at_first(disc_fields, tmp_path):
    # Its trainings are train.yaml's, so that it has no `train` itself.
    data = {"dataset": "coco", "dataset_dir": str(disc_fields), "known": list(KNOWN), "folds": 3}
    workflow = initialized([ACTIVE_LEARNING], None, **{**SMALL, **data, "output_dir": str(tmp_path)})
    assert workflow.check_properties() is None or workflow.check_properties() == []
    assert workflow.version == "0.1.0"
