# SPDX-License-Identifier: Apache-2.0
"""evaluate.yaml measures what can be measured without it, and says what it cannot measure."""

from __future__ import annotations

import json

import pytest

from tests.bundles.bundle_files import NUCLEI
from tests.bundles.nuclei.disc_fields import EVALUATE, KNOWN, UNKNOWN
from tral_monai.data.nuclei.fov_table import read_fovs
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.metrics.detection import detection_metrics, truth_of
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.networks.nuclei.detect import detect
from tral_monai.rounds.bundle_run import run_workflow
from tral_monai.rounds.ledger import Ledger


@pytest.fixture
def evaluate(disc_fields, tmp_path):
    def run(checkpoint, **overrides):
        settings = {"bundle_root": str(NUCLEI.folder), "dataset_name": "coco", "dataset_dir": str(disc_fields)}
        settings |= {"folds": 3, "fov_px": None, "device": "$torch.device('cpu')", "checkpoint": str(checkpoint)}
        run_workflow([EVALUATE], **{**settings, "output_dir": str(tmp_path / "out"), **overrides})
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return run


def test_it_agrees_with_the_metric_computed_without_it(evaluate, trained, run_folder, capsys):
    checkpoint = trained[0] / "model.pt"
    result = evaluate(checkpoint, predict_batch_size=3)
    table = read_fovs(run_folder / "fovs.parquet").query("part == 'test'")
    open_set = OpenSet(KNOWN, (UNKNOWN,))
    images = [FovReader().read(row) for _, row in table.iterrows()]
    found = detect(load_checkpoint(checkpoint), images).detections
    expected = detection_metrics(found, *truth_of(table, open_set), KNOWN)
    figures = {name: float("nan") if value is None else value for name, value in result["figures"].items()}
    assert figures == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert expected["map50"] > 0.5
    names = [name for classes in table["classes"] for name in classes]
    nuclei = {"tumour": names.count("tumour"), "lymphocyte": names.count("lymphocyte"), "unknown": names.count(UNKNOWN)}
    assert result["nuclei"] == nuclei
    assert result["checkpoint"] == {"name": "model.pt", "sha256": file_sha256(checkpoint)}
    assert (result["info"]["fold"], result["info"]["fields"], result["info"]["fields_of_view"]) == (0, 4, 4)
    assert result["info"]["unknown_classes"] == [UNKNOWN]
    shown = capsys.readouterr().out
    assert "on unknown nuclei" in shown
    assert "lymphocyte" in shown


def test_it_agrees_with_the_run_that_made_the_model(evaluate, run_folder):
    result = evaluate(run_folder / "model.pt")
    with Ledger(run_folder / "ledger.sqlite") as ledger:
        recorded = ledger.metrics(2, "test")
        assert result["info"]["index_sha256"] == ledger.info()["index_sha256"]
    for name in ("map50", "tumour_ap50", "lymphocyte_ap50", "fp_on_unknown"):
        assert result["figures"][name] == pytest.approx(recorded[name], abs=1e-6)


def test_all_fields_of_another_hospital(evaluate, trained):
    # One fold: everything is test data, as for a detector that was trained elsewhere.
    assert evaluate(trained[0] / "model.pt", folds=1)["info"]["fields_of_view"] == 12


def test_classes_that_the_checkpoint_does_not_know_are_unknown_or_ignored_as_told(evaluate, trained):
    result = evaluate(trained[0] / "model.pt", unknown=[])
    assert result["nuclei"]["unknown"] == 0
    assert result["figures"]["fp_on_unknown"] == 0


def test_a_checkpoint_of_the_other_bundle(evaluate, small_checkpoint):
    with pytest.raises(CheckpointError, match="must be a checkpoint of OpenSetRCNN, but is of TriCNN"):
        evaluate(small_checkpoint)


def test_no_checkpoint(evaluate, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint .*none.pt"):
        evaluate(tmp_path / "none.pt")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_data_set_without_the_classes_of_the_checkpoint(evaluate, trained, disc_fields, tmp_path):
    content = json.loads((disc_fields / "annotations.json").read_text())
    for category in content["categories"]:
        category["name"] = category["name"].replace("tumour", "carcinoma")
    for image in content["images"]:
        image["file_name"] = str(disc_fields / image["file_name"])
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="tumour"):
        evaluate(trained[0] / "model.pt", dataset_dir=str(tmp_path))
