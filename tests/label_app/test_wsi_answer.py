# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tral_monai.annotations.asap_xml import read_asap_xml
from tral_monai.errors import ConfigError, OutputError
from tral_monai.label_app.wsi_answer import json_answer, write_answer, write_asap, write_dsa
from tral_monai.label_app.wsi_result import Shapes, WsiResult

NASTY = "A & B <\"x\"> 'y' é"
FRAME = shapely.box(100, 200, 400, 500) - shapely.box(200, 300, 300, 400)
SQUARE = shapely.box(200, 300, 300, 400)


def result(**changes: Any) -> WsiResult:
    polygons = np.empty(2, dtype=object)
    polygons[:] = [FRAME, SQUARE]
    shapes = Shapes(
        polygons=polygons,
        labels=np.array([1, 2]),
        scores=np.array([0.9, 0.8]),
        names=(NASTY, "Blood", "Undefined"),
        colours={NASTY: (0, 255, 10), "Blood": (20, 10, 250), "Undefined": (1, 2, 3)},
    )
    values: dict[str, Any] = {
        "model": "tissue",
        "description": NASTY,
        "image": "a.b.tiff",
        "region": (100, 200, 300, 310),
        "dimensions": (1000, 1000),
        "shapes": shapes,
        "warnings": ("something & more",),
        "latencies": {"pre": 0.5, "infer": 1.0, "invert": 0.0, "post": 0.25, "write": 0.0, "total": 1.75},
    }
    return WsiResult(**{**values, **changes})


def test_asap_has_the_shape_that_qupath_reads(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    write_asap(file, result())
    text = file.read_text(encoding="utf-8")
    assert text.startswith('<?xml version="1.0"?>\n<ASAP_Annotations>\n')
    root = ElementTree.fromstring(text)
    head = root.find("Annotations")
    assert head is not None
    assert head.attrib == {
        "Name": "MONAILabel Annotations - tissue for [100, 200, 300, 310]",
        "Description": NASTY,
        "Model": "tissue",
        "X": "100", "Y": "200", "W": "300", "H": "310",
    }  # fmt: skip
    annotations = root.findall("Annotations/Annotation")
    assert [element.attrib for element in annotations] == [
        {"Name": NASTY, "Type": "Polygon", "PartOfGroup": NASTY, "Color": "#00ff0a"},
        {"Name": NASTY, "Type": "Polygon", "PartOfGroup": NASTY, "Color": "#00ff0a"},
        {"Name": "Blood", "Type": "Polygon", "PartOfGroup": "Blood", "Color": "#140afa"},
    ]
    # As QuPath's RunInference does it: every child element of an annotation is one polygon.
    polygons = [
        shapely.Polygon([(float(point.attrib["X"]), float(point.attrib["Y"])) for point in coordinates])
        for annotation in annotations
        for coordinates in annotation
    ]
    assert shapely.union_all(polygons[:2]).equals(FRAME)
    assert sum(part.area for part in polygons[:2]) == FRAME.area
    assert polygons[2].equals(SQUARE)
    assert [coordinate.attrib["Order"] for coordinate in annotations[2].iter("Coordinate")] == ["0", "1", "2", "3"]
    assert all("." not in c.attrib["X"] for c in root.iter("Coordinate"))
    groups = root.findall("AnnotationGroups/Group")
    assert [group.attrib["Name"] for group in groups] == [NASTY, "Blood"]
    assert groups[0].attrib == {"Name": NASTY, "PartOfGroup": "None", "Color": "#00ff0a"}


def test_our_own_reader_takes_asap_back(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    write_asap(file, result())
    found = read_asap_xml(file)
    assert [annotation.class_name for annotation in found] == [NASTY, NASTY, "Blood"]
    assert shapely.union_all([annotation.geometry for annotation in found[:2]]).equals(FRAME)
    assert found[2].color == (20, 10, 250)


def test_characters_that_xml_cannot_hold_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    write_asap(file, result(description="a\x00b\x1bc\ufffe d\ntab\t."))
    head = ElementTree.parse(file).getroot().find("Annotations")
    assert head is not None
    assert head.attrib["Description"] == "a\ufffdb\ufffdc\ufffd d\ntab\t."


def test_dsa_has_the_shape_that_dsa_reads(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_dsa(file, result())
    text = file.read_text(encoding="utf-8")
    answer = json.loads(text)
    assert set(answer) == {"name", "elements", "description"}
    assert answer["name"] == "MONAILabel Annotations - tissue for [100, 200, 300, 310]"
    assert len(answer["elements"]) == 3
    blood = answer["elements"][2]
    corners = blood.pop("points")
    assert blood == {
        "group": "Blood", "type": "polyline", "lineColor": "rgb(20,10,250)", "lineWidth": 2.0, "closed": True,
        "label": {"value": "Blood"},
    }  # fmt: skip
    assert len(corners) == 4
    assert {tuple(corner) for corner in corners} == {(200, 300, 0), (300, 300, 0), (300, 400, 0), (200, 400, 0)}
    # As DSA's command line program looks for it.
    line = text[-5000:].split("\n")[-2:][0].replace('"description": ', "")
    description = json.loads(json.loads(line))
    assert description == {
        "model": "tissue",
        "desc": NASTY,
        "location": [100, 200, 300, 310],
        "size": [300, 310],
        "count": 3,
        "latencies": {"pre": 0.5, "infer": 1.0, "invert": 0.0, "post": 0.25, "write": 0.0, "total": 1.75},
        "warnings": "something & more",
    }


def test_json_is_what_cvats_detector_reads() -> None:
    answer = json_answer(result())
    assert "prediction" not in answer  # it would be shown in place of the contours
    (only,) = answer["annotations"]
    # As its detector.py does it.
    found = [
        (element["label"], np.array(contour, int).flatten().tolist())
        for element in only["annotation"]["elements"]
        for contour in element["contours"]
    ]
    assert [name for name, _ in found] == [NASTY, NASTY, "Blood"]
    assert shapely.Polygon(np.array(found[2][1]).reshape(-1, 2)).equals(SQUARE)
    assert only["annotation"]["labels"] == {NASTY: [0, 255, 10], "Blood": [20, 10, 250]}
    assert only["annotation"]["location"] == [100, 200]
    assert only["annotation"]["size"] == [300, 310]
    assert only["label_names"] == {NASTY: 1, "Blood": 2, "Undefined": 3}
    assert {"total", "pre", "post", "infer"} <= set(only["latencies"])
    assert answer["location"] == [100, 200, 300, 310]
    assert answer["counts"] == {NASTY: 1, "Blood": 1, "Undefined": 0}
    assert answer["warnings"] == ["something & more"]
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize(("output", "suffix"), [("asap", ".xml"), ("dsa", ".json")])
def test_a_file_for_the_endpoint_and_a_summary_beside_it(tmp_path: Path, output: str, suffix: str) -> None:
    answer = write_answer(result(), output, tmp_path)
    assert [str(file) for file in tmp_path.iterdir()] == [answer["file"]]
    assert answer["file"].endswith(suffix)
    assert "annotations" not in answer["params"]
    assert answer["params"]["counts"] == {NASTY: 1, "Blood": 1, "Undefined": 0}
    assert answer["params"]["latencies"]["total"] >= 1.75
    assert write_answer(result(), output, tmp_path)["file"] != answer["file"]


def test_json_comes_without_a_file(tmp_path: Path) -> None:
    answer = write_answer(result(), None, tmp_path)
    assert answer["file"] is None
    assert answer["params"]["annotations"][0]["latencies"] == answer["params"]["latencies"]
    assert not list(tmp_path.iterdir())


def test_nothing_found_is_a_whole_answer(tmp_path: Path) -> None:
    empty = result(shapes=result().shapes.keep(np.array([False, False])))
    xml = write_answer(empty, "asap", tmp_path)["file"]
    assert read_asap_xml(xml) == []
    dsa = json.loads(Path(write_answer(empty, "dsa", tmp_path)["file"]).read_text())
    assert dsa["elements"] == []
    assert json.loads(dsa["description"])["count"] == 0
    assert json_answer(empty)["annotations"][0]["annotation"]["elements"] == []


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output must be asap, dsa or json, but is 'pdf'"):
        write_answer(result(), "pdf", tmp_path)
    with pytest.raises(OutputError, match="cannot write tissue-"):
        write_answer(result(), "asap", tmp_path / "gone")
