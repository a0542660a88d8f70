# SPDX-License-Identifier: Apache-2.0
"""An exported folder runs by itself, from any folder, and refuses weights that are not those that were exported."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles.bundle_files import ROOT
from tests.inference.colour_slides import slide_pixels, write_slide
from tests.inference.export.small_models import TISSUE_BUNDLE, save_small
from tral_monai.errors import CheckpointError
from tral_monai.inference.export.bundle_folder import export_bundle
from tral_monai.rounds.bundle_run import run_workflow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide, a checkpoint, and the checkpoint exported."""
    root = tmp_path_factory.mktemp("exported")
    (root / "slides").mkdir()
    write_slide(root / "slides" / "small.tif", slide_pixels())
    export_bundle(TISSUE_BUNDLE, save_small(root), root / "x", tiles=2, report=lambda line: None)
    return root


def run(bundle: str, output_dir: Path, **settings: str) -> None:
    options = {"bundle_root": bundle, "output_dir": str(output_dir), "device": "$torch.device('cpu')", **settings}
    run_workflow([Path(bundle) / "configs" / "inference.yaml"], **options)


def test_it_maps_a_slide_from_another_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = str(folder / "slides" / "small.tif")
    run(str(TISSUE_BUNDLE), tmp_path / "source", slides=slide, checkpoint=str(folder / "model.pt"))
    shutil.move(shutil.copytree(folder / "x", tmp_path / "sent"), tmp_path / "received")
    monkeypatch.chdir(tmp_path)
    run("received", tmp_path / "maps", slides=slide)
    ours, theirs = (np.asarray(Image.open(tmp_path / name / "small_classes.png")) for name in ("source", "maps"))
    assert (ours == theirs).all()
    records = [json.loads((tmp_path / name / "small.json").read_text()) for name in ("source", "maps")]
    assert records[0]["model"]["weights_sha256"] == records[1]["model"]["weights_sha256"]
    for key in ("map", "tiles", "areas_mm2"):
        assert records[0]["result"][key] == records[1]["result"][key]


def test_it_refuses_other_weights(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "x", tmp_path / "copy")
    weights = bytearray((copy / "models" / "model.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copy / "models" / "model.pt").write_bytes(weights)
    with pytest.raises(CheckpointError, match="models/model.pt changed; copy it again"):
        run(str(copy), tmp_path / "maps", slides=str(folder / "slides" / "small.tif"))
    assert not list(tmp_path.glob("maps/*.geojson"))


@pytest.mark.slow
def test_the_commands(folder: Path, tmp_path: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)

    script, checkpoint = str(ROOT / "scripts" / "export.py"), str(folder / "model.pt")
    common = ["--bundle", str(TISSUE_BUNDLE), "--checkpoint", checkpoint, "--tiles", "4", "--formats", "onnx"]
    slide = ["--slide", str(folder / "slides" / "small.tif")]
    failed = command(script, *common, "--output_dir", "out/y", "--max_difference", "0")
    assert failed.returncode == 1
    assert "error: onnx does not compute what the source checkpoint does" in failed.stderr
    assert list((tmp_path / "out").iterdir()) == []
    made = command(script, *common, *slide, "--output_dir", "out/y")
    assert made.returncode == 0, made.stderr
    assert "onnx: 100.00 % of 8 classes agree" in made.stdout
    checked = command(script, "--verify", "out/y")
    assert checked.returncode == 0, checked.stderr
    words = ["-m", "monai.bundle", "run", "--bundle_root", "out/y", "--config_file", "out/y/configs/inference.yaml"]
    ran = command(*words, "--slides", str(folder / "slides" / "*.tif"), "--output_dir", "maps")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "maps" / "small.geojson").is_file()


def test_the_script_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("export_script", ROOT / "scripts" / "export.py")
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    with pytest.raises(SystemExit):
        script.main(["--bundle", str(TISSUE_BUNDLE)])
    assert "give --checkpoint, --output_dir, or --verify FOLDER" in capsys.readouterr().err
    assert script.main(["--verify", str(tmp_path)]) == 1
    assert "SHA256SUMS" in capsys.readouterr().err


def test_a_monai_deploy_application(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("holoscan")  # monai-deploy-app-sdk goes into an environment of its own
    app = ROOT / "deploy" / "monai_deploy" / "app.py"
    words = ["--input", str(folder / "slides"), "--model", str(folder / "x"), "--output", str(tmp_path / "maps")]
    ran = subprocess.run(
        [sys.executable, str(app), *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert (tmp_path / "maps" / "small.geojson").is_file()
