# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import shapely

from tral_monai.annotations.files import read_annotations
from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.nuclei_geojson import NucleiGeoJSONWriter, write_nuclei
from tral_monai.inference.nuclei.nucleus_map import NucleusMap


def many(count: int) -> NucleusMap:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 90_000, (count, 2))
    return NucleusMap(
        boxes_level0=np.column_stack((low, low + rng.uniform(10, 60, (count, 2)))).astype(np.float32),
        labels=rng.integers(0, 3, count),
        score=rng.uniform(0.5, 1, count).astype(np.float32),
        uncertainty=rng.uniform(0, 1, count).astype(np.float32),
        distance_known=rng.uniform(0, 20, count).astype(np.float32),
        distance_unknown=rng.uniform(0, 20, count).astype(np.float32),
        classes=("a", "b", "c"),
        colours={"a": (1, 2, 3), "b": (4, 5, 6), "c": (7, 8, 9)},
        dimensions=(100_000, 100_000),
        mpp_xy=(0.25, 0.25),
        analysed_mm2=100.0,
    )


def test_one_feature_as_qupath_has_it(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    write_nuclei(tmp_path / "a.geojson", three_nuclei)
    collection = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert collection["features"][1] == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[100.25, 60], [120.75, 60], [120.75, 80], [100.25, 80], [100.25, 60]]],
        },
        "properties": {
            "objectType": "detection",
            "classification": {"name": "lymphocyte", "color": [0, 90, 200]},
            "measurements": {"Score": 0.75, "Uncertainty": 0.5, "Distance to known": 3.0, "Distance to unknown": 2.0},
        },
    }
    # What is not known is left out: JSON has no NaN.
    assert collection["features"][2]["properties"]["measurements"] == {"Score": 0.5, "Uncertainty": 1.0}


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_the_packages_own_reader_reads_it(three_nuclei: NucleusMap, tmp_path: Path, name: str) -> None:
    write_nuclei(tmp_path / name, three_nuclei)
    annotations = read_annotations(tmp_path / name)
    assert [a.class_name for a in annotations] == ["tumour", "lymphocyte", "tumour"]
    assert [a.object_type for a in annotations] == ["detection"] * 3
    assert [a.geometry.bounds for a in annotations] == [(10, 20, 30, 50), (100.25, 60, 120.75, 80), (0, 0, 8, 8)]
    assert annotations[0].color == (200, 0, 0)
    assert annotations[0].properties["measurements"]["Distance to unknown"] == 4.0


def test_no_nuclei_is_a_valid_collection(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    none = np.empty(0, dtype=np.float32)
    empty = dataclasses.replace(
        three_nuclei,
        boxes_level0=none.reshape(0, 4),
        labels=np.empty(0, dtype=np.int64),
        score=none,
        uncertainty=none,
        distance_known=none,
        distance_unknown=none,
    )
    write_nuclei(tmp_path / "a.geojson", empty)
    assert json.loads((tmp_path / "a.geojson").read_text()) == {"type": "FeatureCollection", "features": []}
    assert read_annotations(tmp_path / "a.geojson") == []


def test_names_are_escaped(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    odd = 'T-"cell" \\ µ {x}'
    nuclei = dataclasses.replace(
        three_nuclei, classes=(odd, "b", "c"), colours={odd: (1, 2, 3), "b": (4, 5, 6), "c": (7, 8, 9)}
    )
    write_nuclei(tmp_path / "a.geojson", nuclei)
    assert read_annotations(tmp_path / "a.geojson")[0].class_name == odd


def test_given_colours_win(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    write_nuclei(tmp_path / "a.geojson", three_nuclei, colours={"tumour": (9, 9, 9)})
    assert [a.color for a in read_annotations(tmp_path / "a.geojson")] == [(9, 9, 9), (0, 90, 200), (9, 9, 9)]
    with pytest.raises(ConfigError, match="the colour of 'tumour' must be three whole numbers"):
        NucleiGeoJSONWriter(colours={"tumour": (1, 2)})


def test_a_hundred_thousand_nuclei_take_seconds_and_little_memory(tmp_path: Path) -> None:
    nuclei = many(100_000)
    started = time.process_time()
    write_nuclei(tmp_path / "a.geojson", nuclei)
    assert time.process_time() - started < 10  # 1 s on an unburdened core
    assert (tmp_path / "a.geojson").stat().st_size < 45e6
    tracemalloc.start()
    write_nuclei(tmp_path / "b.geojson", many(30_000))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    with (tmp_path / "a.geojson").open(encoding="utf-8") as file:
        features = json.load(file)["features"]
    assert len(features) == 100_000
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in features])
    boxes = np.column_stack((rings.min(axis=1), rings.max(axis=1)))
    assert np.abs(boxes - nuclei.boxes_level0).max() <= 0.0051 + 90_000 * 2**-24  # a hundredth, and float32's own
    assert shapely.polygons(rings[:1000]).all()
    names = [feature["properties"]["classification"]["name"] for feature in features]
    assert names == [nuclei.classes[label] for label in nuclei.labels]


def test_the_packed_writer_expects_another_file() -> None:
    assert NucleiGeoJSONWriter().suffix == ".geojson"
    assert NucleiGeoJSONWriter(packed=True).suffix == ".geojson.gz"


def test_what_could_not_be_decoded_is_an_annotation_behind_the_nuclei(three_nuclei: NucleusMap, tmp_path: Path) -> None:
    damaged = dataclasses.replace(three_nuclei, not_analysed_level0=np.array([[100.0, 0, 200, 50], [0, 50, 100, 100]]))
    write_nuclei(tmp_path / "a.geojson", damaged, colours={"Not analysed": (9, 9, 9)})
    annotations = read_annotations(tmp_path / "a.geojson")
    assert [a.object_type for a in annotations] == ["detection"] * 3 + ["annotation"] * 2
    assert [a.class_name for a in annotations[3:]] == ["Not analysed"] * 2
    assert [a.geometry.bounds for a in annotations[3:]] == [(100, 0, 200, 50), (0, 50, 100, 100)]
    # 100 x 50 px of 0.5 um are 1,250 um2.
    assert annotations[3].properties["measurements"] == {"area_mm2": pytest.approx(0.00125)}
    assert annotations[3].color == (9, 9, 9)
