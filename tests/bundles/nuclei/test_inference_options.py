# SPDX-License-Identifier: Apache-2.0
"""inference.yaml of the nuclei with another engine: what lies in the files, and what is kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.bundles.bundle_files import NUCLEI
from tests.bundles.nuclei.disc_fields import INFERENCE, MPP
from tral_monai.rounds.bundle_run import run_workflow

FILES = {"field_00.csv", "field_00.json", "field_00_overlay.png", "counts.csv"}


def infer(checkpoint: Path, fields: Path, output: Path, **options: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """Run the bundle on one field and give its record and its table."""
    run_workflow(
        [INFERENCE],
        bundle_root=str(NUCLEI.folder),
        **{"checkpoint": str(checkpoint), "images": str(fields / "field_00.png"), "output_dir": str(output)},
        **{"device": "$torch.device('cpu')", "mpp": MPP, "overlap_px": 24, "num_workers": 0, **options},
    )
    return json.loads((output / "field_00.json").read_text()), pd.read_csv(output / "field_00.csv")


def test_another_engine_finds_the_same_nuclei_and_another_precision_does_the_field_again(
    trained, disc_fields, tmp_path
):
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    checkpoint = trained[0] / "model.pt"
    record, found = infer(checkpoint, disc_fields, tmp_path, engine="openvino", agreement_tiles=8, packed=True)
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"field_00.geojson.gz"}
    assert record["settings"]["engine"] == "openvino"
    assert record["runtime"]["agreement"]["tiles"] == 1  # a field of one tile
    with gzip.open(tmp_path / "field_00.geojson.gz", "rt", encoding="utf-8") as file:
        packed = json.load(file)
    packed = packed["features"] if isinstance(packed, dict) else packed
    assert [shape["properties"]["classification"]["name"] for shape in packed] == found["class"].tolist()

    record, exact = infer(checkpoint, disc_fields, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"field_00.geojson"}  # the packed one is gone
    assert (record["settings"]["engine"], record["runtime"]["agreement"]) == ("torch", None)
    assert len(exact) > 0
    assert found["class"].tolist() == exact["class"].tolist()
    columns = ["xmin_level0", "ymin_level0", "xmax_level0", "ymax_level0", "score"]
    np.testing.assert_allclose(found[columns], exact[columns], atol=0.02)

    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "counts.csv"}
    infer(checkpoint, disc_fields, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "counts.csv"} == before
