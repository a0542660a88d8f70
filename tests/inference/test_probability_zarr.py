# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

from tests.inference.colour_slides import ColourNet, slide_pixels, write_slide
from tral_monai.errors import ConfigError
from tral_monai.inference.probability_zarr import ProbabilityZarrWriter, write_probabilities
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.inference.tissue_mapper import TissueMapper


@pytest.fixture
def with_probabilities(small_map: TissueMap) -> TissueMap:
    """Stroma's probability is what the map shows of it; tiles not looked at have none."""
    stroma = np.where(small_map.class_index == 2, 0.25, small_map.confidence).astype(np.float16)
    return dataclasses.replace(small_map, probabilities=np.stack([stroma, 1 - stroma], axis=-1))


def test_channels_are_the_models_classes_and_nan_where_it_did_not_look(
    with_probabilities: TissueMap, tmp_path: Path
) -> None:
    write_probabilities(tmp_path / "p", with_probabilities, name="s.tif", colours={"Muscle": (1, 2, 3)})
    group = zarr.open_group(str(tmp_path / "p"), mode="r")
    nan = np.nan
    stroma = [[nan, 0.75, 1.0, nan], [0.75, 0.25, 1.0, nan], [0.75, 1.0, 0.75, 0.25]]
    np.testing.assert_array_equal(group["0"][0], np.array(stroma, dtype=np.float32))
    np.testing.assert_array_equal(group["0"][1], 1 - np.array(stroma, dtype=np.float32))
    assert [(c["label"], c["color"]) for c in group.attrs["omero"]["channels"]] == [
        ("Stroma", "F032E6"),
        ("Muscle", "010203"),
    ]
    own = group.attrs["tral_monai"]
    assert own["classes"] == ["Stroma", "Muscle"]
    assert (own["step_level0"], own["mpp_xy"], own["dimensions_level0"]) == (100.0, [1.0, 1.0], [350, 300])
    assert [entry["name"] for entry in own["map_values"]] == [
        "Background",
        "Stroma",
        "Muscle",
        "Undefined",
        "Not analysed",
    ]


def test_a_tile_that_was_not_analysed_is_no_background_in_the_labels(
    with_probabilities: TissueMap, tmp_path: Path
) -> None:
    write_probabilities(tmp_path / "p", with_probabilities, name="s.tif")
    group = zarr.open_group(str(tmp_path / "p"), mode="r")
    assert group["labels"].attrs["labels"] == ["classes"]
    labels = group["labels/classes"]
    np.testing.assert_array_equal(labels["0"][:], with_probabilities.class_index)
    image_label = labels.attrs["image-label"]
    names = {entry["label-value"]: entry["name"] for entry in image_label["properties"]}
    assert (names[int(labels["0"][1, 3])], names[int(labels["0"][0, 3])]) == ("Not analysed", "Background")
    alpha = {entry["label-value"]: entry["rgba"][3] for entry in image_label["colors"]}
    assert alpha == {0: 0, 1: 255, 2: 255, 3: 255, 4: 255}
    assert labels.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [100.0, 100.0]},
        {"type": "translation", "translation": [49.5, 49.5]},
    ]


def test_probabilities_must_have_been_kept(small_map: TissueMap, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no probabilities to write; set keep_probabilities of the mapper to true"):
        write_probabilities(tmp_path / "p", small_map, name="s.tif")
    engine: Any = SimpleNamespace(mapper=TissueMapper(ColourNet()))
    with pytest.raises(ConfigError, match="the mapper does not keep .* set keep_probabilities of the mapper to true"):
        ProbabilityZarrWriter().attach(engine)
    with pytest.raises(ConfigError, match="colour of 'Fat'"):
        ProbabilityZarrWriter(colours={"Fat": (1, 2)})


def test_a_run_leaves_one_whole_folder_per_slide(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "s.tif", slide_pixels())
    mapper = TissueMapper(ColourNet(), keep_probabilities=True)
    left = tmp_path / "maps" / ".part-0123456789ab-s_probabilities.ome.zarr"
    left.mkdir(parents=True)
    evaluator = SlideEvaluator(
        SlideListDataset(slide), mapper, tmp_path / "maps", val_handlers=[ProbabilityZarrWriter()]
    )
    evaluator.run()
    folder = tmp_path / "maps" / "s_probabilities.ome.zarr"
    assert list((tmp_path / "maps").iterdir()) == [folder]
    kept = evaluator.results[0].prediction.probabilities
    np.testing.assert_array_equal(zarr.open_group(str(folder), mode="r")["0"][:], kept.transpose(2, 0, 1))
    assert json.loads((folder / ".zattrs").read_text())["multiscales"][0]["name"] == "s.tif"
