# SPDX-License-Identifier: Apache-2.0
"""The command of the documentation as a person types it; a start costs 10 to 20 s of imports, so there are only two."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from tests.bundles.bundle_files import ROOT, SMALL

BUNDLE = "bundles/pathology_multiscale_tissue_classification"


@pytest.fixture
def run(tiny_cohort, tmp_path):
    def start(*options: str) -> subprocess.CompletedProcess[str]:
        files = f"['{BUNDLE}/configs/active_learning.yaml','configs/tri_al/cpu.yaml']"
        command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", BUNDLE, "--config_file", files]
        command += ["--cohort", str(tiny_cohort), "--output_dir", str(tmp_path / "x"), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    return start


def test_active_learning(run, feature_dir, tmp_path):
    small = ["--backbone", str(SMALL["backbone"]), "--pretrained_path", "$None", "--max_epochs", "2"]
    done = run(
        *("--strategy", "tri_al_quota", "--rounds", "2", "--budget", "4", "--initial_per_class", "1", "--seed", "0"),
        *small,
        *("--device", "$torch.device('cpu')"),
    )
    assert done.returncode == 0, done.stderr
    assert "round 2/2" in done.stdout
    summary = pd.read_csv(tmp_path / "x" / "summary.csv")
    assert summary["labels"].tolist() == [5, 5, 9, 9]
    assert (tmp_path / "x" / "report.html").is_file()


def test_a_mistyped_option_is_refused(run, tmp_path):
    done = run("--bugdet", "4")
    assert done.returncode != 0
    assert "ConfigError: unknown option --bugdet: did you mean --budget?" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "x").exists()
