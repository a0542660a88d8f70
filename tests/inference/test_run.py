# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.colour_slides import CLASSES, PATTERN, ColourNet, slide_pixels, write_slide
from tral_monai.annotations.geojson import read_geojson
from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.class_map_png import read_class_map
from tral_monai.inference.run import TissueInference
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.tri_cnn import TriCNN

VALUE = {".": 0, "S": 1, "M": 2, "B": 3}


def test_a_pattern_of_slides_becomes_maps(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif", slide_pixels())
    write_slide(tmp_path / "two.tif", slide_pixels(PATTERN[::-1]))
    results = TissueInference(
        f"{tmp_path}/*.tif",
        tmp_path / "maps",
        network=ColourNet(),
        classes=list(CLASSES.values()),
        colours={"Blood": (200, 0, 0)},
        device="cpu",
        tissue_method="paper",
        progress=False,
    ).run()
    assert [(result.name, result.status) for result in results] == [("one.tif", "mapped"), ("two.tif", "mapped")]
    values, _ = read_class_map(tmp_path / "maps" / "two_classes.png")
    assert values.tolist() == [[VALUE[character] for character in row] for row in PATTERN[::-1]]
    blood = [a for a in read_geojson(tmp_path / "maps" / "one.geojson") if a.class_name == "Blood"]
    assert [annotation.geometry.bounds for annotation in blood] == [(9 * 128, 6 * 128, 12 * 128, 9 * 128)]
    assert blood[0].color == (200, 0, 0)
    with Image.open(tmp_path / "maps" / "one_overlay.png") as overlay:
        assert (np.asarray(overlay) == (200, 0, 0)).all(axis=2).any()  # the legend


def test_a_checkpoint_is_all_that_is_needed(tmp_path: Path) -> None:
    write_slide(tmp_path / "one.tif", slide_pixels(("SSSS",) * 4))
    network = TriCNN(["Stroma", "Muscle"], backbone="timm:mobilenetv3_small_050", hidden=(4,), seed=0)
    save_checkpoint(tmp_path / "model.pt", network)
    TissueInference(
        tmp_path / "one.tif", tmp_path / "maps", checkpoint=tmp_path / "model.pt", tissue_method="paper", progress=False
    ).run()
    record = json.loads((tmp_path / "maps" / "one.json").read_text())
    assert record["settings"]["classes"] == ["Stroma", "Muscle"]
    assert record["model"]["contract"]["backbone"] == "timm:mobilenetv3_small_050"
    assert record["model"]["checkpoint"]["name"] == "model.pt"


def test_what_is_needed_is_checked_first(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "one.tif", slide_pixels(("SSSS",) * 4))
    with pytest.raises(ConfigError, match="either a checkpoint or a network"):
        TissueInference(slide, tmp_path / "maps")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        TissueInference(slide, tmp_path / "maps", checkpoint=tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="no slide matches"):
        TissueInference(f"{tmp_path}/*.svs", tmp_path / "maps", network=ColourNet())


@pytest.mark.skipif("TRAL_DATA" not in os.environ, reason="TRAL_DATA does not name the folder of the real slides")
def test_a_real_slide(tmp_path: Path) -> None:
    """Purple epithelium against pink stroma on the colon polyp: no truth, but the tissue's area is known."""
    slides = Path(os.environ["TRAL_DATA"]) / "slides"
    network = TriCNN(["a", "b"], backbone="timm:mobilenetv3_small_050", hidden=(), magnifications=(10.0,), seed=0)
    (result,) = TissueInference(
        slides / "cmu-1-small-region.svs", tmp_path, network=network, device="cpu", progress=False, batch_size=128
    ).run()
    found = result.record["result"]
    # 2220 x 2967 px of 0.499 um: 1.64 mm2, nearly all of it tissue.
    assert sum(found["areas_mm2"].values()) == pytest.approx(1.64, abs=0.01)
    assert found["tissue_mm2"] > 0.8
    assert found["not_analysed"]["tiles"] == 0
