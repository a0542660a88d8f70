# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

import numpy as np
import pytest
import shapely

from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.polygon_answer import PolygonAnswerd
from tral_monai.inference.region_inferer import RegionPrediction
from tral_monai.inference.tissue_map import TissueMap


@pytest.fixture
def tissue(small_map: TissueMap) -> RegionPrediction:
    whole = dataclasses.replace(small_map, failures=())
    return RegionPrediction(whole, (10, 20, 300, 200), {"Stroma": (1, 2, 3)})


@pytest.fixture
def three_nuclei() -> NucleusMap:
    """Two tumour, one lymphocyte."""
    unknown = np.full(3, np.nan, dtype=np.float32)
    return NucleusMap(
        boxes_level0=np.array([[10, 20, 30, 50], [100.25, 60, 120.75, 80], [0, 0, 8, 8]], dtype=np.float32),
        labels=np.array([0, 1, 0]),
        score=np.array([0.9, 0.75, 0.5], dtype=np.float32),
        uncertainty=unknown,
        distance_known=unknown,
        distance_unknown=unknown,
        classes=("tumour", "lymphocyte", "stroma"),
        colours={"tumour": (200, 0, 0), "lymphocyte": (0, 90, 200), "stroma": (10, 20, 30)},
        dimensions=(200, 100),
        mpp_xy=(0.5, 0.5),
        analysed_mm2=0.02,
    )


def shapes(answer: dict[str, Any]) -> dict[str, shapely.Geometry]:
    """What the contours of every label cover."""
    return {
        element["label"]: shapely.union_all([shapely.Polygon(contour) for contour in element["contours"]])
        for element in answer["annotation"]["elements"]
    }


def test_tissue_becomes_polygons_without_holes(tissue: RegionPrediction) -> None:
    answer = PolygonAnswerd()({"pred": tissue, "image": "left out"})
    # B S S B
    # S M S N    100 px each; the muscle is a hole of the stroma, which is the answer's without the muscle. Undefined
    # S S S U    and not analysed tiles are of no class.
    muscle = shapely.box(100, 100, 200, 200)
    stroma = shapely.union_all([shapely.box(100, 0, 300, 100), shapely.box(0, 100, 300, 300)]) - muscle
    found = shapes(answer)
    assert set(found) == {"stroma", "muscle"}
    assert found["muscle"].equals(muscle)
    assert found["stroma"].equals(stroma)
    assert answer["annotation"]["location"] == [10, 20]
    assert answer["annotation"]["size"] == [300, 200]
    assert answer["annotation"]["labels"]["stroma"] == [1, 2, 3]  # the network's own


def test_names_and_colours_as_given(tissue: RegionPrediction) -> None:
    answer = PolygonAnswerd(class_colours={"Stroma": [9, 8, 7]}, lower_case=False)({"pred": tissue})
    assert set(shapes(answer)) == {"Stroma", "Muscle"}
    assert answer["annotation"]["labels"]["Stroma"] == [9, 8, 7]


def test_nuclei_become_boxes(three_nuclei: NucleusMap) -> None:
    answer = PolygonAnswerd()({"pred": RegionPrediction(three_nuclei, None, {})})
    found = shapes(answer)
    assert found["tumour"].equals(shapely.union_all([shapely.box(10, 20, 30, 50), shapely.box(0, 0, 8, 8)]))
    assert found["lymphocyte"].equals(shapely.box(100.25, 60, 120.75, 80))
    assert answer["annotation"]["labels"] == {"tumour": [200, 0, 0], "lymphocyte": [0, 90, 200]}
    assert answer["annotation"]["location"] == [0, 0]
    assert answer["annotation"]["size"] == [0, 0]


def test_nothing_found_is_an_answer(three_nuclei: NucleusMap) -> None:
    columns = ("boxes_level0", "labels", "score", "uncertainty", "distance_known", "distance_unknown")
    nothing = dataclasses.replace(three_nuclei, **{name: getattr(three_nuclei, name)[:0] for name in columns})
    answer = PolygonAnswerd()({"pred": RegionPrediction(nothing, (0, 0, 10, 10), {})})
    assert answer["annotation"]["elements"] == []
    assert answer["pred"] == 0


def test_the_answer_is_what_the_app_adds_up_and_sends(tissue: RegionPrediction) -> None:
    before = {"pre": {"RegionRequestd": 0.25, "Other": 0.5}}
    answer = PolygonAnswerd()({"pred": tissue, "latencies": before})
    answer["latencies"]["post"]["Restored"] = 1.0  # so the app notes what a transform after this one took
    answer["pred"].shape  # noqa: B018  and it looks at this
    sent = json.loads(json.dumps(answer))
    assert sent["skip_writer"] is True
    assert sent["pred"] == 3  # one of muscle; of stroma two, cut along a side of its hole
    assert set(sent) == {"annotation", "pred", "latencies", "skip_writer"}
    assert sent["latencies"]["pre"] == 0.75
    assert sent["latencies"]["infer"] == 3.0  # the map's own
    assert 0 <= sent["latencies"]["post"] < 1
    assert sum([answer["latencies"]["pre"], answer["latencies"]["post"]]) == pytest.approx(
        sent["latencies"]["total"] - 3.0, abs=1e-3
    )


def test_what_was_not_analysed_is_logged(small_map: TissueMap, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tral_monai.inference.polygon_answer"):
        PolygonAnswerd()({"pred": RegionPrediction(small_map, None, {})})
    assert "not analysed: region (300, 100) cannot be decoded" in caplog.text


def test_only_what_a_region_inferer_found_can_be_answered() -> None:
    with pytest.raises(ConfigError, match="pred is a list; use it as the inferer"):
        PolygonAnswerd()({"pred": []})
    with pytest.raises(ConfigError, match="three whole numbers"):
        PolygonAnswerd(class_colours={"Stroma": [1, 2]})
