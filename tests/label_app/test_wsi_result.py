# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely

from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.label_app.wsi_result import WsiResult, nucleus_shapes, tissue_names, tissue_shapes


def tissue_map(rows: list[list[int]]) -> TissueMap:
    """Cells of 100 px: 0 Background, 1 Stroma, 2 Muscle, 3 Undefined, 4 Not analysed; every probability is 0.75."""
    index = np.array(rows, dtype=np.uint8)
    confidence = np.where((index > 0) & (index < 4), 0.75, np.nan).astype(np.float16)
    height, width = index.shape
    return TissueMap(
        class_index=index,
        confidence=confidence,
        probabilities=None,
        classes=MapClasses(["Stroma", "Muscle"]),
        grid=MapGrid(dimensions=(100 * width, 100 * height), step_level0=100.0),
        mpp_xy=(0.5, 0.5),
        failed_centres_level0=np.argwhere(index == 4)[:, ::-1] * 100 + 50,
    )


def nucleus_map(boxes: list[list[float]], labels: list[int]) -> NucleusMap:
    ones = np.ones(len(labels), dtype=np.float32)
    return NucleusMap(
        boxes_level0=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        score=ones * 0.5,
        uncertainty=ones,
        distance_known=ones,
        distance_unknown=ones,
        classes=("tumour", "lymphocyte"),
        colours={"tumour": (200, 0, 0), "lymphocyte": (0, 90, 200)},
        dimensions=(100, 100),
        mpp_xy=(0.25, 0.25),
        analysed_mm2=1.0,
    )


def test_tiles_of_one_class_come_as_one_polygon_and_undefined_ones_are_told() -> None:
    shapes = tissue_shapes([tissue_map([[1, 1, 0], [1, 2, 3], [4, 2, 2]])], {"Stroma": (1, 2, 3)})
    assert shapes.names == ("Stroma", "Muscle", "Undefined")
    assert shapes.values == {"Stroma": 1, "Muscle": 2, "Undefined": 3}
    assert shapes.counts() == {"Stroma": 1, "Muscle": 1, "Undefined": 1}
    assert shapes.colours["Stroma"] == (1, 2, 3)
    assert shapes.scores.tolist() == [0.75] * 3
    of_class = dict(zip(shapes.labels.tolist(), shapes.polygons, strict=True))
    assert of_class[1].equals(shapely.box(0, 0, 200, 100) | shapely.box(0, 100, 100, 200))
    assert of_class[2].equals(shapely.box(100, 100, 200, 300) | shapely.box(200, 200, 300, 300))
    assert of_class[3].equals(shapely.box(200, 100, 300, 200))


def test_parts_of_one_slide_are_put_together() -> None:
    left = tissue_map([[1, 1, 0, 0], [1, 2, 0, 0]])
    right = tissue_map([[0, 0, 1, 0], [0, 2, 2, 0]])
    shapes = tissue_shapes([left, right])
    assert shapes.counts() == {"Stroma": 1, "Muscle": 1, "Undefined": 0}
    assert shapely.area(shapes.polygons).tolist() == [40_000, 20_000]


def test_nothing_found() -> None:
    shapes = tissue_shapes([tissue_map([[0, 0]])])
    assert len(shapes) == 0
    assert shapes.counts() == {"Stroma": 0, "Muscle": 0, "Undefined": 0}
    assert len(nucleus_shapes([nucleus_map([], [])])) == 0


def test_a_model_that_knows_the_background_does_not_draw_it() -> None:
    assert tissue_names(["Blood", "Background", "Stroma"]) == ("Blood", "Stroma", "Undefined")


def test_boxes_are_whole_pixels_and_come_once() -> None:
    one = nucleus_map([[10.4, 20.6, 30, 40], [50, 50, 50.2, 50.3]], [0, 1])
    other = nucleus_map([[10.4, 20.6, 30, 40], [10.4, 20.6, 30, 40]], [0, 1])
    shapes = nucleus_shapes([one, other])
    assert [polygon.bounds for polygon in shapes.polygons] == [(10, 21, 30, 40), (50, 50, 51, 51), (10, 21, 30, 40)]
    assert shapes.labels.tolist() == [1, 2, 2]
    assert shapes.values == {"tumour": 1, "lymphocyte": 2}
    assert shapes.keep(np.array([True, False, False])).counts() == {"tumour": 1, "lymphocyte": 0}


def test_rings_cover_a_shape_with_a_hole_and_do_not_repeat_a_corner() -> None:
    shapes = tissue_shapes([tissue_map([[1, 1, 1], [1, 2, 1], [1, 1, 1]])])
    result = WsiResult(
        model="tissue", description="", image="a.tif", region=(0, 0, 300, 300), dimensions=(300, 300), shapes=shapes
    )
    rings = list(result.rings())
    assert [name for name, _ in rings] == ["Stroma", "Stroma", "Muscle"]
    assert all(ring[0] != ring[-1] and isinstance(ring[0][0], int) for _, ring in rings)
    stroma = [shapely.Polygon(ring) for name, ring in rings if name == "Stroma"]
    assert shapely.union_all(stroma).equals(shapely.box(0, 0, 300, 300) - shapely.box(100, 100, 200, 200))
    assert sum(part.area for part in stroma) == pytest.approx(80_000)


def test_writing_counts_into_the_total() -> None:
    shapes = tissue_shapes([tissue_map([[1]])])
    result = WsiResult(
        model="m", description="", image="a", region=(0, 0, 1, 1), dimensions=(1, 1), shapes=shapes,
        latencies={"infer": 1.0, "write": 0.0, "total": 1.5},
    )  # fmt: skip
    assert result.written_in(0.25).latencies == {"infer": 1.0, "write": 0.25, "total": 1.75}
    assert dataclasses.asdict(result)["latencies"]["total"] == 1.5
