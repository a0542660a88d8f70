# SPDX-License-Identifier: Apache-2.0
"""The command of the documentation as a person types it; a start costs 10 to 20 s of imports, so there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd

from tests.bundles.bundle_files import ROOT
from tests.bundles.nuclei.disc_fields import KNOWN, SMALL

BUNDLE = "bundles/pathology_open_set_nucleus_detection"


def test_active_learning_with_the_overlay_for_a_cpu(disc_fields, tmp_path):
    files = f"['{BUNDLE}/configs/active_learning.yaml','configs/osal_nd/cpu.yaml']"
    command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", BUNDLE, "--config_file", files]
    command += ["--dataset", "coco", "--dataset_dir", str(disc_fields), "--known", str(list(KNOWN))]
    command += ["--strategy", "osal_nd", "--rounds", "2", "--fold", "0", "--folds", "3", "--seed", "0"]
    command += ["--output_dir", str(tmp_path / "n"), "--device", "$torch.device('cpu')", "--pretrained_path", "$None"]
    command += ["--updates_per_epoch", "2", "--max_epochs", "1", "--initial_fraction", "0.4", "--query_fraction", "0.2"]
    command += ["--backbone", str(SMALL["backbone"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "round 2/2" in done.stdout
    summary = pd.read_csv(tmp_path / "n" / "summary.csv")
    assert summary["images"].tolist() == [3, 5]  # 40 % and then 20 % of eight, rounded
    assert (tmp_path / "n" / "report.html").is_file()
    assert (tmp_path / "n" / "model.pt").is_file()
