# SPDX-License-Identifier: Apache-2.0
"""inference.yaml turns a run's model into nuclei that QuPath opens."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.bundles.bundle_files import NUCLEI
from tests.bundles.nuclei.disc_fields import FIELD_PX, INFERENCE, KNOWN, MPP
from tral_monai.annotations import read_annotations
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.rounds.bundle_run import run_workflow

CPU = NUCLEI.overlay_folder / "cpu.yaml"
MEASUREMENTS = ["Score", "Uncertainty", "Distance to known", "Distance to unknown"]


def infer(output_dir, checkpoint, images, **overrides):
    settings = {"bundle_root": str(NUCLEI.folder), "checkpoint": str(checkpoint), "images": images, "mpp": MPP}
    settings |= {"output_dir": str(output_dir), "device": "$torch.device('cpu')", "overlap_px": 24}
    # The overlay's network settings do not matter here: the checkpoint says what the network is.
    return run_workflow([INFERENCE, CPU], **{**settings, **overrides})


@pytest.fixture(scope="module")
def nuclei(trained, run_folder, disc_fields, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nuclei")
    auxiliary = run_folder / "rounds" / "round_001" / "auxiliary.pt"
    infer(folder, trained[0] / "model.pt", str(disc_fields / "field_0[01].png"), auxiliary_checkpoint=str(auxiliary))
    return folder


def test_the_files(nuclei):
    names = {f"field_0{n}{end}" for n in (0, 1) for end in (".geojson", ".csv", ".json", "_overlay.png")}
    assert {path.name for path in nuclei.iterdir()} == {*names, "counts.csv"}


def test_geojson_table_and_counts_agree(nuclei):
    counts = pd.read_csv(nuclei / "counts.csv").set_index("image")
    total = 0
    for stem in ("field_00", "field_01"):
        objects = read_annotations(nuclei / f"{stem}.geojson")
        table = pd.read_csv(nuclei / f"{stem}.csv")
        record = json.loads((nuclei / f"{stem}.json").read_text())
        total += len(objects)
        assert [found.class_name for found in objects] == table["class"].tolist()
        assert {found.object_type for found in objects} <= {"detection"}
        boxes = np.array([found.geometry.bounds for found in objects]).reshape(-1, 4)
        columns = [f"{side}_level0" for side in ("xmin", "ymin", "xmax", "ymax")]
        np.testing.assert_allclose(boxes, table[columns].to_numpy(), atol=0.01)
        assert table["score"].between(0.5, 1).all()
        assert counts.loc[f"{stem}.png", "nuclei"] == len(table)
        assert counts.loc[f"{stem}.png", "analysed_mm2"] == pytest.approx((FIELD_PX * MPP / 1000) ** 2, abs=1e-6)
        assert record["settings"]["classes"] == list(KNOWN)
        for found in objects:
            assert list(found.properties["measurements"]) == MEASUREMENTS
    assert total > 0


def test_it_finds_what_was_drawn(nuclei, disc_fields):
    # The detector was trained on field_00 or tested on it; either way most discs of these colours are found.
    content = json.loads((disc_fields / "annotations.json").read_text())
    known = {entry["id"]: entry["name"] for entry in content["categories"] if entry["name"] in KNOWN}
    for number in (0, 1):
        drawn = [entry for entry in content["annotations"] if entry["image_id"] == number]
        table = pd.read_csv(nuclei / f"field_0{number}.csv")
        for entry in (entry for entry in drawn if entry["category_id"] in known):
            x, y, width, height = entry["bbox"]
            centre_um = np.array([x + width / 2, y + height / 2]) * MPP
            away_um = np.hypot(*(table[["centre_x_um", "centre_y_um"]].to_numpy() - centre_um).T)
            assert away_um.min() < 2.0


def test_without_the_auxiliary_detector_no_distances(trained, disc_fields, tmp_path):
    infer(tmp_path, trained[0] / "model.pt", str(disc_fields / "field_00.png"))
    table = pd.read_csv(tmp_path / "field_00.csv")
    assert table[["distance_known", "distance_unknown"]].isna().all(axis=None)
    assert table["uncertainty"].between(0, 1).all()


def test_finished_images_are_kept(nuclei, trained, run_folder, disc_fields):
    before = {path.name: path.stat().st_mtime_ns for path in nuclei.iterdir() if path.name != "counts.csv"}
    auxiliary = run_folder / "rounds" / "round_001" / "auxiliary.pt"
    infer(nuclei, trained[0] / "model.pt", str(disc_fields / "field_0[01].png"), auxiliary_checkpoint=str(auxiliary))
    assert {path.name: path.stat().st_mtime_ns for path in nuclei.iterdir() if path.name != "counts.csv"} == before


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"images": "nowhere/*.png"}, ConfigError, "nowhere"),
        ({"known_only": True}, ConfigError, "known_only"),
        ({"min_score": 2.0}, ConfigError, "min_score"),
        ({"checkpoint": "none.pt"}, CheckpointError, "there is no checkpoint .*none.pt"),
    ],
)
def test_a_wrong_setting_is_named(overrides, error, message, trained, disc_fields, tmp_path):
    settings = {"images": str(disc_fields / "field_00.png"), "checkpoint": str(trained[0] / "model.pt"), **overrides}
    with pytest.raises(error, match=message):
        infer(tmp_path / "out", settings.pop("checkpoint"), settings.pop("images"), **settings)
