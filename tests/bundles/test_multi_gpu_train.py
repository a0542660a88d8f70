# SPDX-License-Identifier: Apache-2.0
"""multi_gpu_train.yaml with two processes on the CPU, which exchange over gloo as GPUs do over NCCL."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pandas as pd
import pytest
import torch

from tests.bundles.bundle_files import BLADDER, BUNDLE, CONFIGS, ROOT, SMALL
from tral_monai.data.triplet_source import TripletSource
from tral_monai.networks.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def trained(samples, tmp_path_factory):
    """Two epochs by two processes, 9 samples to train on and 5 for validation."""
    folder = tmp_path_factory.mktemp("two_processes")
    settings = {**samples, "bundle_root": str(BUNDLE), "output_dir": str(folder), "backbone": SMALL["backbone"]}
    settings |= {"hidden": "[]", "max_epochs": 2, "batch_size": 2, "learning_rate": 0.01}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "monai.bundle",
    ]
    command += ["run", "--config_file", f"['{CONFIGS / 'train.yaml'}','{CONFIGS / 'multi_gpu_train.yaml'}']"]
    command += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


def test_one_process_logs(trained):
    _, log = trained
    assert re.findall(r"Epoch\[(\d)\] Metrics -- val_loss", log) == ["1", "2"]
    assert log.count("SupervisedTrainer - INFO - Engine run finished") == 1


def test_the_saved_model_has_the_loss_that_all_processes_summed(trained, samples):
    folder, log = trained
    assert [path.name for path in folder.iterdir()] == ["model.pt"]
    network = load_checkpoint(folder / "model.pt")
    assert network.classes == BLADDER
    rows = pd.read_parquet(samples["val_samples"])
    labels = torch.tensor([BLADDER.index(name) for name in rows["class"]])
    with torch.no_grad():
        logits = network(torch.from_numpy(TripletSource().read(rows)))
    # One process saw three of the five samples, the other two; the log has four decimals.
    best = min(float(value) for value in re.findall(r"Metrics -- val_loss: ([\d.]+)", log))
    assert float(torch.nn.functional.cross_entropy(logits, labels)) == pytest.approx(best, abs=1e-4)
