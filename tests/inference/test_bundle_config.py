# SPDX-License-Identifier: Apache-2.0
"""The configuration that docs/inference.md shows is run as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN

DOCS = Path(__file__).resolve().parents[2] / "docs" / "inference.md"

METADATA = {"version": "0.1.0", "monai_version": "1.6.1", "pytorch_version": "2.8.0", "numpy_version": "1.26.4"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (found,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    for folder in ("configs", "models", "slides"):
        (tmp_path / folder).mkdir()
    (tmp_path / "configs" / "inference.yaml").write_text(found)
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    network = TriCNN(["Stroma", "Muscle"], backbone="timm:mobilenetv3_small_050", hidden=(), seed=0)
    save_checkpoint(tmp_path / "models" / "model.pt", network)
    write_slide(tmp_path / "slides" / "a.tif", slide_pixels(("SSSSMM",) * 6), mpp=None)
    return tmp_path


def test_it_has_the_properties_of_a_bundle_and_runs(bundle: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.yaml"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(bundle / "slides"),
        output_dir=str(bundle / "maps"),
        mpp=0.25,
        device="$torch.device('cpu')",
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert isinstance(workflow.evaluator, SlideEvaluator)
    workflow.run()
    workflow.finalize()
    written = sorted(path.name for path in (bundle / "maps").iterdir())
    assert written == ["a.geojson", "a.json", "a_classes.png", "a_overlay.png", "areas.csv"]
    record = json.loads((bundle / "maps" / "a.json").read_text())
    assert record["slide"]["mpp_source"] == "given"
    assert np.sum(list(record["result"]["tiles"].values())) == 36
