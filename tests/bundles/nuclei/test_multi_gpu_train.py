# SPDX-License-Identifier: Apache-2.0
"""multi_gpu_train.yaml with two processes on the CPU, which exchange over gloo as GPUs do over NCCL."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.bundles.bundle_files import ROOT
from tests.bundles.nuclei.disc_fields import KNOWN, MULTI_GPU, TRAIN
from tral_monai.data.nuclei.fov_table import read_fovs
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.metrics.detection import detection_metrics, truth_of
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.nuclei.detect import detect


@pytest.fixture(scope="module")
def trained_by_two(training, tmp_path_factory):
    """Two epochs of 20 updates by two processes with 2 of the 8 fields of view in a batch each."""
    folder = tmp_path_factory.mktemp("two_processes")
    settings = {**training, "output_dir": str(folder), "batch_size": 2, "updates_per_epoch": 20, "max_epochs": 2}
    settings |= {"val_interval": 1}
    del settings["device"], settings["verbose"]  # multi_gpu_train.yaml's own
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command += ["monai.bundle", "run", "--config_file", f"['{TRAIN}','{MULTI_GPU}']"]
    command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


def test_one_process_logs(trained_by_two):
    _, log = trained_by_two
    assert log.count("SupervisedTrainer - INFO - Engine run finished") == 1
    assert len(re.findall(r"Metrics -- .*map50: [\d.]+", log)) == 2


def test_all_fields_are_validated_with_the_detector_that_is_saved(trained_by_two, samples):
    folder, log = trained_by_two
    assert [path.name for path in folder.iterdir()] == ["model.pt"]
    table = read_fovs(samples["val_samples"])
    images = [FovReader().read(row) for _, row in table.iterrows()]
    found = detect(load_checkpoint(folder / "model.pt"), images).detections
    metrics = detection_metrics(found, *truth_of(table, OpenSet(KNOWN)), KNOWN)
    # Each process saw two of the four fields; the log has four decimals.
    shown = [float(value) for value in re.findall(r"Metrics -- .*?\bmap50: ([\d.]+)", log)]
    assert metrics["map50"] == pytest.approx(shown[-1], abs=2e-4)
