# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tral_monai.annotations.geojson import read_geojson
from tral_monai.inference.geojson_text import box_ring, feature, properties, write_features


@pytest.mark.parametrize("measurements", ["", '"a":1', '"a":1,"b":0.5'])
def test_a_feature_is_whole_json(measurements: str) -> None:
    text = feature(box_ring("1", "2", "3", "4.50"), properties("detection", 'T-"cell" µ', (1, 2, 3)), measurements)
    assert json.loads(text) == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4.5], [1, 4.5], [1, 2]]]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": 'T-"cell" µ', "color": [1, 2, 3]},
            "measurements": json.loads(f"{{{measurements}}}"),
        },
    }


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_collection_of_any_size_is_read_back(tmp_path: Path, name: str, count: int) -> None:
    head = properties("annotation", "Stroma", (1, 2, 3))
    write_features(tmp_path / name, (feature(box_ring("0", "0", f"{i}", "5"), head, "") for i in range(1, count + 1)))
    assert [a.geometry.bounds for a in read_geojson(tmp_path / name)] == [(0, 0, i, 5) for i in range(1, count + 1)]
