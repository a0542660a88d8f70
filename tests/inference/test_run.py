# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
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


class Bluer(torch.nn.Module):
    """Two classes by the 10x tile's mean colour: more red than blue, or more blue than red."""

    classes = ("Red", "Blue")
    magnifications = (10.0,)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.float().mean(dim=(2, 3))
        return torch.stack([mean[:, 0], mean[:, 2]], dim=1)


@pytest.mark.skipif("TRAL_DATA" not in os.environ, reason="TRAL_DATA does not name the folder of the real slides")
def test_a_real_slide(tmp_path: Path) -> None:
    slides = Path(os.environ["TRAL_DATA"]) / "slides"
    (result,) = TissueInference(
        slides / "colon_polyp_lower.tif", tmp_path, network=Bluer(), device="cpu", progress=False, mpp=0.25
    ).run()
    found = result.record["result"]
    # 9984 x 16128 px of 0.25 um, and 47 % tissue by the mask that comes with the slide.
    assert sum(found["areas_mm2"].values()) == pytest.approx(10.064, abs=0.001)
    assert found["tissue_mm2"] == pytest.approx(0.47 * 10.064, rel=0.1)
    assert found["not_analysed"]["tiles"] == 0
    values, _ = read_class_map(tmp_path / "colon_polyp_lower_classes.png")
    with Image.open(slides / "colon_polyp_lower_tissue_mask.png") as mask:
        theirs = np.asarray(mask).reshape(126, 8, 78, 8).mean(axis=(1, 3)) >= 0.5
    ours = values > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9
    polygons = read_geojson(tmp_path / "colon_polyp_lower.geojson")
    assert all(shapely.is_valid(polygon.geometry) for polygon in polygons)
    assert sum(polygon.geometry.area for polygon in polygons) == ours.sum() * 128 * 128
