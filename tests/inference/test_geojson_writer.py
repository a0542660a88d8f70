# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tral_monai.annotations.geojson import read_geojson, to_feature
from tral_monai.errors import ConfigError
from tral_monai.inference.geojson_text import write_features
from tral_monai.inference.geojson_writer import GeoJSONWriter, class_annotations, region_features
from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.tissue_map import TissueMap


def test_regions_and_measurements_by_hand(small_map: TissueMap) -> None:
    stroma, muscle, undefined, missing = class_annotations(small_map)
    square = shapely.box(100, 100, 200, 200)
    assert muscle.geometry.equals(square)
    # One connected region: all of 3 x 3 tiles but the first and the middle one.
    assert stroma.geometry.equals(shapely.box(0, 0, 300, 300) - shapely.box(0, 0, 100, 100) - square)
    assert len(stroma.geometry.interiors) == 1
    assert stroma.properties["measurements"] == {
        "area_mm2": pytest.approx(0.07),
        "tiles": 7,
        "mean_probability": pytest.approx((0.75 + 1.0 + 0.75 + 1.0 + 0.75 + 1.0 + 0.75) / 7, abs=1e-4),
    }
    assert (stroma.class_name, stroma.color) == ("Stroma", (240, 50, 230))
    assert (undefined.class_name, undefined.geometry.bounds) == ("Undefined", (300, 200, 350, 300))
    assert undefined.properties["measurements"]["area_mm2"] == pytest.approx(0.005)  # half a tile
    assert missing.class_name == "Not analysed"
    assert "mean_probability" not in missing.properties["measurements"]


def test_the_file_is_what_qupath_reads(small_map: TissueMap, tmp_path: Path) -> None:
    GeoJSONWriter(colours={"Muscle": (1, 2, 3)}, object_type="detection").write(tmp_path / "s.geojson", None, small_map)
    features = json.loads((tmp_path / "s.geojson").read_text())["features"]
    muscle = next(f for f in features if f["properties"]["classification"]["name"] == "Muscle")
    assert muscle["type"] == "Feature"
    assert muscle["geometry"]["type"] == "Polygon"
    assert sorted(map(tuple, muscle["geometry"]["coordinates"][0][:-1])) == [
        (100, 100),
        (100, 200),
        (200, 100),
        (200, 200),
    ]
    assert muscle["properties"] == {
        "objectType": "detection",
        "classification": {"name": "Muscle", "color": [1, 2, 3]},
        "measurements": {"area_mm2": pytest.approx(0.01), "tiles": 1, "mean_probability": 0.5},
    }
    assert [a.class_name for a in read_geojson(tmp_path / "s.geojson")] == [
        "Stroma",
        "Muscle",
        "Undefined",
        "Not analysed",
    ]


def test_no_tissue_gives_a_file_without_objects(small_map: TissueMap, tmp_path: Path) -> None:
    empty = dataclasses.replace(small_map, class_index=np.zeros((3, 4), dtype=np.uint8))
    GeoJSONWriter().write(tmp_path / "s.geojson", None, empty)
    assert read_geojson(tmp_path / "s.geojson") == []


def test_350_000_tiles_are_written_in_seconds(tmp_path: Path) -> None:
    from scipy import ndimage

    noise = np.random.default_rng(0).normal(size=(5, 500, 700))
    values = np.argmax([ndimage.gaussian_filter(layer, 1.2) for layer in noise], axis=0).astype(np.uint8)
    tissue = TissueMap(
        class_index=values,
        confidence=np.full(values.shape, 0.8, dtype=np.float16),
        probabilities=None,
        classes=MapClasses(["a", "b", "c", "d"]),
        grid=MapGrid(dimensions=(700 * 128, 500 * 128), step_level0=128.0),
        mpp_xy=(0.25, 0.25),
        failed_centres_level0=np.zeros((0, 2), dtype=np.int64),
    )
    started = time.process_time()
    GeoJSONWriter().write(tmp_path / "s.geojson", None, tissue)
    assert time.process_time() - started < 5.0  # about 0.5 CPU-seconds alone; room for a loaded machine
    total = sum(a.geometry.area for a in read_geojson(tmp_path / "s.geojson"))
    assert total == 128 * 128 * int((values > 0).sum())


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.integers(0, 4))
)
def test_the_text_says_what_the_annotations_say(values: npt.NDArray[np.uint8]) -> None:
    confidence = np.where(np.isin(values, (0, 4)), np.nan, np.linspace(0.3, 1, values.size).reshape(values.shape))
    tissue = TissueMap(
        class_index=values,
        confidence=confidence.astype(np.float16),
        probabilities=None,
        classes=MapClasses(["Stroma", 'odd "\\ µ']),
        grid=MapGrid(dimensions=(int(values.shape[1] * 12.7), int(values.shape[0] * 12.7)), step_level0=12.7),
        mpp_xy=(0.25, 0.5),
        failed_centres_level0=np.zeros((0, 2), dtype=np.int64),
    )
    text = [json.loads(one) for one in region_features(tissue, object_type="detection")]
    assert text == [to_feature(one) for one in class_annotations(tissue, object_type="detection")]


def test_one_square_per_tile_by_hand(small_map: TissueMap, tmp_path: Path) -> None:
    GeoJSONWriter(per_tile=True).write(tmp_path / "s.geojson", None, small_map)
    tiles = read_geojson(tmp_path / "s.geojson")
    assert len(tiles) == 10
    assert {tile.object_type for tile in tiles} == {"detection"}
    first, missing, undefined = tiles[0], tiles[5], tiles[-1]
    assert (first.class_name, first.geometry.bounds) == ("Stroma", (100, 0, 200, 100))
    assert first.properties["measurements"] == {"probability": 0.75}
    assert (undefined.class_name, undefined.geometry.bounds) == (
        "Undefined",
        (300, 200, 350, 300),
    )  # ends at the border
    assert (missing.class_name, missing.geometry.bounds) == ("Not analysed", (300, 100, 350, 200))
    assert missing.properties["measurements"] == {}
    union = shapely.union_all([tile.geometry for tile in tiles])
    assert union.equals(shapely.union_all([region.geometry for region in class_annotations(small_map)]))


def test_a_kill_while_writing_leaves_no_file_that_looks_finished(small_map: TissueMap, tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield next(region_features(small_map))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path / "s.geojson", broken())
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="object_type must be one of"):
        GeoJSONWriter(object_type="cell")
    with pytest.raises(ConfigError, match="colour of 'Fat'"):
        GeoJSONWriter(colours={"Fat": (1, 2)})
