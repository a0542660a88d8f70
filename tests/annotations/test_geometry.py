# SPDX-License-Identifier: Apache-2.0
import logging

import pytest
import shapely

from tral_monai.annotations.geometry import polygonal
from tral_monai.annotations.model import Annotation, ShapeProblem
from tral_monai.errors import AnnotationError

BOW_TIE = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])  # two triangles of area 1 that meet in (1, 1)


def test_a_valid_polygon_is_its_own_area():
    square = shapely.box(0, 0, 2, 2)
    assert polygonal(Annotation(square)) is square


@pytest.mark.parametrize(
    "geometry", [shapely.Point(0, 0), shapely.LineString([(0, 0), (1, 1)]), shapely.GeometryCollection()]
)
def test_points_and_lines_have_no_area(geometry):
    assert polygonal(Annotation(geometry)) is None


def test_a_self_crossing_polygon_is_repaired_and_named(caplog):
    problems: list[ShapeProblem] = []
    with caplog.at_level(logging.WARNING):
        area = polygonal(Annotation(BOW_TIE, "Tumor", "train"), file="a.geojson", index=4, problems=problems)
    assert area.is_valid
    assert area.area == 2.0
    assert [(p.file, p.shape, p.kind) for p in problems] == [
        ("a.geojson", "shape 5 (class 'Tumor', name 'train')", "repaired")
    ]
    assert "a.geojson, shape 5 (class 'Tumor', name 'train'): the outline is not a valid polygon" in caplog.text


def test_only_polygons_remain_of_a_repair():
    spike = shapely.Polygon([(0, 0), (2, 0), (5, 0), (2, 0), (2, 2), (0, 2)])  # a needle out of a square
    area = polygonal(Annotation(spike))
    assert isinstance(area, shapely.Polygon)
    assert area.bounds == (0, 0, 2, 2)


def test_a_shape_without_area_is_an_error_or_noted():
    line = Annotation(shapely.Polygon([(0, 0), (1, 1), (2, 2)]), "Tumor")
    with pytest.raises(
        AnnotationError, match=r"shape 1 \(class 'Tumor'\): no area is left after repair.*draw the shape"
    ):
        polygonal(line, file="a.geojson")
    problems: list[ShapeProblem] = []
    assert polygonal(line, problems=problems) is None
    assert [p.kind for p in problems] == ["dropped"]


def test_overlapping_parts_count_once():
    parts = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2)])
    assert polygonal(Annotation(parts)).area == 6.0


def test_polygons_inside_a_collection_count():
    collection = shapely.GeometryCollection([shapely.Point(9, 9), shapely.box(0, 0, 2, 2)])
    assert polygonal(Annotation(collection)).area == 4.0
