# SPDX-License-Identifier: Apache-2.0
import dataclasses
import gzip
import json
import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tral_monai.annotations.geojson import parse_geojson, read_geojson, to_feature, write_geojson
from tral_monai.annotations.model import Annotation, ShapeProblem
from tral_monai.errors import AnnotationError, OutputError

SQUARE = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0], [0.0, 0.0]]
HOLE = [[2.0, 2.0], [2.0, 4.0], [4.0, 4.0], [4.0, 2.0], [2.0, 2.0]]
TRIANGLE = [[20.5, 0.1], [30.0, 0.0], [30.0, 9.0], [20.5, 0.1]]

# As QuPath 0.5 exports: an annotation with a hole, an unclassified one, a cell with its nucleus, a point.
QUPATH = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": "c1f7f8ab-0c8d-4a0e-9a6b-6f6a8d7d0b11",
            "geometry": {"type": "Polygon", "coordinates": [SQUARE, HOLE], "plane": {"c": -1, "z": 2, "t": 0}},
            "properties": {
                "objectType": "annotation",
                "name": "train",
                "classification": {"name": "Tumor", "color": [200, 0, 0]},
                "isLocked": True,
                "metadata": {"ANNOTATION_DESCRIPTION": "seen by two"},
                "measurements": {"Area": 96.0},
            },
        },
        {
            "type": "Feature",
            "id": "0b",
            "geometry": {"type": "MultiPolygon", "coordinates": [[SQUARE], [TRIANGLE]]},
            "properties": {"objectType": "annotation", "color": [1, 2, 3]},
        },
        {
            "type": "Feature",
            "id": "0c",
            "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
            "nucleusGeometry": {"type": "Polygon", "coordinates": [HOLE]},
            "properties": {
                "objectType": "cell",
                "classification": {"names": ["Tumor", "Positive"], "color": [250, 62, 62]},
            },
        },
        {
            "type": "Feature",
            "id": "0d",
            "geometry": {"type": "MultiPoint", "coordinates": [[-1.5, 2.0], [3.0, 4.25]]},
            "properties": {"objectType": "annotation", "classification": {"name": "Mitosis", "color": [0, 0, 9]}},
        },
    ],
}  # fmt: skip


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def polygon(*rings, **properties):
    return feature({"type": "Polygon", "coordinates": list(rings)}, **properties)


def test_what_qupath_exports_is_understood():
    tumor, unclassified, cell, points = parse_geojson(json.dumps(QUPATH))
    assert (tumor.class_name, tumor.name, tumor.color) == ("Tumor", "train", (200, 0, 0))
    assert tumor.geometry.area == 100 - 4
    assert tumor.properties["measurements"] == {"Area": 96.0}
    assert (unclassified.class_name, unclassified.color) == (None, (1, 2, 3))
    assert isinstance(unclassified.geometry, shapely.MultiPolygon)
    assert (cell.class_name, cell.object_type) == ("Tumor: Positive", "cell")
    assert cell.extra["nucleusGeometry"] == {"type": "Polygon", "coordinates": [HOLE]}
    assert shapely.get_coordinates(points.geometry).tolist() == [[-1.5, 2.0], [3.0, 4.25]]


def test_what_qupath_exports_is_written_as_it_was(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, parse_geojson(json.dumps(QUPATH)))
    assert json.loads(path.read_text()) == QUPATH


@pytest.mark.parametrize("container", ["list", "single", "collection"])
def test_list_collection_and_single_feature(container):
    one = polygon(SQUARE)
    text = {"list": [one], "single": one, "collection": {"type": "FeatureCollection", "features": [one]}}[container]
    assert [a.geometry.area for a in parse_geojson(json.dumps(text))] == [100.0]


def test_packed_colour_of_older_qupath():
    # -3670016 is 0xFFC80000 as Java's signed int: opaque (200, 0, 0).
    annotation = parse_geojson(json.dumps([polygon(SQUARE, classification={"name": "Tumor", "colorRGB": -3670016})]))[0]
    assert annotation.color == (200, 0, 0)
    assert to_feature(annotation)["properties"]["classification"] == {"name": "Tumor", "color": [200, 0, 0]}


def test_object_type_of_older_qupath_is_its_id():
    old = {**polygon(SQUARE), "id": "PathDetectionObject"}
    assert parse_geojson(json.dumps([old]))[0].object_type == "detection"


def test_class_name_without_a_classification():
    assert parse_geojson(json.dumps([polygon(SQUARE, class_name="stroma")]))[0].class_name == "stroma"
    assert parse_geojson(json.dumps([polygon(SQUARE, classification="stroma")]))[0].class_name == "stroma"


def test_a_changed_class_wins_over_what_the_file_said():
    cell = parse_geojson(json.dumps(QUPATH))[2]
    changed = to_feature(dataclasses.replace(cell, class_name="Stroma", color=(0, 1, 2)))
    assert changed["properties"]["classification"] == {"name": "Stroma", "color": [0, 1, 2]}
    assert "classification" not in to_feature(dataclasses.replace(cell, class_name=None, color=None))["properties"]


def test_a_classification_without_a_name_is_kept_and_means_unclassified():
    annotation = parse_geojson(json.dumps([polygon(SQUARE, classification={"color": [9, 9, 9]})]))[0]
    assert annotation.class_name is None
    assert to_feature(annotation)["properties"]["classification"] == {"color": [9, 9, 9]}


def test_a_feature_without_a_place_is_kept():
    annotation = parse_geojson(json.dumps([feature(None, name="slide")]))[0]
    assert annotation.geometry.is_empty
    assert to_feature(annotation)["geometry"] is None


def test_lines_and_collections_keep_their_type(tmp_path):
    shapes = [
        {"type": "LineString", "coordinates": [[0.0, 1.0], [2.0, 3.0]]},
        {"type": "MultiLineString", "coordinates": [[[0.0, 1.0], [2.0, 3.0]], [[5.0, 5.0], [6.0, 6.0]]]},
        {"type": "Point", "coordinates": [7.0, 8.0]},
        {"type": "Point", "coordinates": [7.0, 8.0, 9.0]},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [7.0, 8.0]}]},
    ]
    write_geojson(tmp_path / "a.json", parse_geojson(json.dumps([feature(shape) for shape in shapes])))
    assert [f["geometry"] for f in json.loads((tmp_path / "a.json").read_text())["features"]] == shapes


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=3, max_size=8),
        min_size=1,
        max_size=3,
    )
)
def test_coordinates_come_back_to_the_last_bit(tmp_path_factory, rings):
    path = tmp_path_factory.mktemp("bits") / "a.geojson"
    geometry = shapely.Polygon(rings[0], rings[1:])
    write_geojson(path, [Annotation(geometry, "x")])
    back = read_geojson(path)[0].geometry
    assert shapely.get_coordinates(back).tobytes() == shapely.get_coordinates(geometry).tobytes()
    assert len(back.interiors) == len(rings) - 1


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_the_same_annotations_give_the_same_bytes(tmp_path, name):
    annotations = parse_geojson(json.dumps(QUPATH))
    contents = []
    for _ in range(2):
        write_geojson(tmp_path / name, iter(annotations))
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert (contents[0][:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert read_geojson(tmp_path / name) == annotations


def test_names_in_any_script_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([polygon(SQUARE, name="Übergang 移行")]).encode())
    write_geojson(path, read_geojson(path))
    assert read_geojson(path)[0].name == "Übergang 移行"


def test_an_open_ring_is_closed_and_noted():
    problems: list[ShapeProblem] = []
    annotation = parse_geojson(json.dumps([polygon(SQUARE[:-1], name="p")]), file="a.json", problems=problems)[0]
    assert shapely.get_coordinates(annotation.geometry).tolist() == SQUARE
    assert [(p.file, p.shape, p.kind) for p in problems] == [("a.json", "shape 1 (name 'p')", "closed")]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (polygon(SQUARE[:2], name="p"), r"a\.json, shape 2 \(name 'p'\): a polygon needs at least 3 points, but has 2"),
        (polygon([[0, 0], [1, 0], [0, 0]]), "at least 3 points, but has 2"),
        (polygon([]), "points of 2 numbers"),
        (polygon(), "no coordinates"),
        (polygon([[0, 0], [1, math.nan], [1, 1], [0, 0]]), "point 2 is not a finite number"),
        (polygon([[0, 0], [1, "x"], [1, 1], [0, 0]]), "points of 2 numbers"),
        (polygon([[0, 0], [1], [1, 1], [0, 0]]), "points of 2 numbers"),
        (feature({"type": "Circle", "coordinates": [0, 0]}), "of type Point, .*but found 'Circle'"),
        (feature({"type": "LineString", "coordinates": [[0, 0]]}), "a line needs at least 2 points, but has 1"),
        (feature({"type": "MultiPolygon", "coordinates": [[]]}), "no rings"),
        (polygon(SQUARE, classification=3), "classification with a name, but found 3"),
        (polygon(SQUARE, classification={"name": 3}), "class name as text, but found 3"),
        (polygon(SQUARE, classification={"name": "a", "color": "#ff0000"}), "colour as .* but found '#ff0000'"),
        (polygon(SQUARE, classification={"name": "a", "color": [0, 0, 256]}), "colour as"),
        (polygon(SQUARE, classification={"name": "a", "colorRGB": "red"}), "colorRGB as a whole number"),
        ({"type": "Feature", "geometry": None, "properties": [1]}, "properties as an object"),
        ("x", "type 'Feature', but found 'x'"),
    ],
)
def test_a_shape_that_cannot_be_used_is_named_or_noted(shape, message):
    text = json.dumps([polygon(SQUARE), shape, polygon(SQUARE)])
    with pytest.raises(AnnotationError, match=message):
        parse_geojson(text, file="a.json")
    problems: list[ShapeProblem] = []
    assert len(parse_geojson(text, file="a.json", problems=problems)) == 2
    assert [p.kind for p in problems] == ["dropped"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "FeatureCollection",\n "features": [,', r"a\.json, line 2, column 15: not valid JSON"),
        ('{"type": "Topology"}', r"expected a GeoJSON FeatureCollection.*QuPath"),
        ('{"type": "FeatureCollection", "features": {}}', "expected a GeoJSON FeatureCollection"),
        ("[" * 100_000, r"a\.json(: the JSON is nested too deeply|, line 1)"),
    ],
)
def test_malformed_files_are_named(text, message):
    with pytest.raises(AnnotationError, match=message):
        parse_geojson(text, file="a.json")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"b\.geojson: cannot be read \(No such file"):
        read_geojson(tmp_path / "b.geojson")
    (tmp_path / "c.gz").write_bytes(gzip.compress(json.dumps(QUPATH).encode())[:-20])
    with pytest.raises(AnnotationError, match=r"c\.gz: the gzip file is cut off"):
        read_geojson(tmp_path / "c.gz")
    (tmp_path / "d.geojson").write_bytes(b'{"type": "\xff"}')
    with pytest.raises(AnnotationError, match=r"d\.geojson: expected UTF-8 text, but byte 10"):
        read_geojson(tmp_path / "d.geojson")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, [Annotation(shapely.Point(1, 2))])
    before = path.read_bytes()
    bad = Annotation(shapely.Point(1, 2), "Tumor", properties={"array": np.zeros(2)})
    with pytest.raises(AnnotationError, match=r"a\.geojson, shape 2 \(class 'Tumor'\): cannot be written as JSON"):
        write_geojson(path, [Annotation(shapely.Point(1, 2)), bad])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.geojson"]


def test_writing_into_no_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write a\.geojson: .*nowhere"):
        write_geojson(tmp_path / "nowhere" / "a.geojson", [])
