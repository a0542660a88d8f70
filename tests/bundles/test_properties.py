# SPDX-License-Identifier: Apache-2.0
"""The ids by which MONAI's programs, and MONAI Label, reach into the workflows."""

from __future__ import annotations

from tests.bundles.bundle_files import CONFIGS, SMALL, initialized
from tral_monai.data.triplet_dataset import TripletDataset
from tral_monai.inference.slide_evaluator import SlideEvaluator


def test_training(samples, tmp_path):
    workflow = initialized([CONFIGS / "train.yaml"], "train", output_dir=str(tmp_path), **SMALL, **samples)
    assert workflow.check_properties() == []
    assert workflow.max_epochs == 100
    assert isinstance(workflow.train_dataset, TripletDataset)
    assert workflow.train_dataset_data == samples["train_samples"]
    assert workflow.channel_def["5"] == "Urothelium"
    assert isinstance(workflow.train_handlers, list)  # MONAI Label appends its own


def test_evaluation(tiny_cohort, run_folder, tmp_path):
    workflow = initialized(
        [CONFIGS / "evaluate.yaml"],
        "infer",
        cohort=str(tiny_cohort),
        output_dir=str(tmp_path),
        checkpoint=str(run_folder / "model.pt"),
    )
    assert workflow.check_properties() == []
    assert isinstance(workflow.dataset, TripletDataset)
    assert list(workflow.key_metric) == ["f1_macro"]


def test_inference(tiny_cohort, small_checkpoint, tmp_path):
    workflow = initialized(
        [CONFIGS / "inference.yaml"],
        "infer",
        slides=str(tiny_cohort.parent / "slides"),
        output_dir=str(tmp_path / "maps"),
        checkpoint=str(small_checkpoint),
    )
    assert workflow.check_properties() == []
    assert isinstance(workflow.evaluator, SlideEvaluator)
    assert len(workflow.dataset) == 4
    assert workflow.version == "0.1.0"


def test_active_learning_has_what_a_training_workflow_is_checked_for_by_name(tiny_cohort, tmp_path):
    # Its trainings are train.yaml's, so it has no `train` itself; these are what a server looks at first.
    workflow = initialized(
        [CONFIGS / "active_learning.yaml"],
        None,
        cohort=str(tiny_cohort),
        output_dir=str(tmp_path),
        initial_per_class=1,
        budget=1,
        **SMALL,
    )
    assert workflow.check_properties() is None or workflow.check_properties() == []
    assert workflow.version == "0.1.0"
