# SPDX-License-Identifier: Apache-2.0
"""inference.yaml turns a run's model into maps that QuPath opens."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from tests.bundles.bundle_files import BUNDLE, CONFIGS, CPU
from tral_monai.annotations import read_annotations
from tral_monai.errors import ConfigError
from tral_monai.rounds.bundle_run import run_workflow
from tral_monai.slides import open_slide

INFERENCE = CONFIGS / "inference.yaml"


@pytest.fixture(scope="module")
def maps(tiny_cohort, run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    run_workflow(
        [INFERENCE, CPU],  # the overlay's network settings do not matter here: the checkpoint says what the network is
        bundle_root=str(BUNDLE),
        checkpoint=str(run_folder / "model.pt"),
        slides=str(tiny_cohort.parent / "slides" / "B-02.tif"),
        output_dir=str(folder),
        device="$torch.device('cpu')",
    )
    return folder


def test_the_files(maps):
    names = {"B-02.geojson", "B-02.json", "B-02_classes.png", "B-02_overlay.png", "areas.csv"}
    assert {path.name for path in maps.iterdir()} == names


def test_the_class_map_has_a_pixel_per_tile_and_the_record_counts_them(maps, tiny_cohort):
    record = json.loads((maps / "B-02.json").read_text())
    pixels = np.asarray(Image.open(maps / "B-02_classes.png"))
    # A tile of 128 px at 40x is 32 um wide; the last one may be cut.
    with open_slide(tiny_cohort.parent / "slides" / "B-02.tif") as slide:
        across, down = (math.ceil(size * slide.mpp / 32) for size in slide.dimensions)
    assert pixels.shape == (record["result"]["map"]["rows"], record["result"]["map"]["columns"]) == (down, across)
    assert sum(record["result"]["tiles"].values()) == across * down
    assert record["model"]["checkpoint"]["name"] == "model.pt"


def test_the_polygons_have_classes_and_colours(maps):
    annotations = read_annotations(maps / "B-02.geojson")
    classes = {"Blood", "Damaged", "Muscle", "Stroma", "Urothelium", "Undefined"}
    assert annotations
    assert {annotation.class_name for annotation in annotations} <= classes
    colours = {annotation.class_name: annotation.color for annotation in annotations}
    expected = {"Urothelium": (245, 130, 48), "Stroma": (240, 50, 230), "Undefined": (128, 128, 128)}
    assert {name: colours[name] for name in expected if name in colours} == {
        name: colour for name, colour in expected.items() if name in colours
    }


def test_no_slide_is_an_error(run_folder, tmp_path):
    with pytest.raises(ConfigError, match="no slide matches .*none"):
        run_workflow(
            [INFERENCE],
            bundle_root=str(BUNDLE),
            checkpoint=str(run_folder / "model.pt"),
            slides=str(tmp_path / "none*.tif"),
            output_dir=str(tmp_path / "maps"),
            device="$torch.device('cpu')",
        )
