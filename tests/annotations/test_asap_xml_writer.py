# SPDX-License-Identifier: Apache-2.0
import re

import pytest
import shapely

from tral_monai.annotations.asap_xml import parse_asap_xml, read_asap_xml
from tral_monai.annotations.asap_xml_writer import write_asap_xml
from tral_monai.annotations.model import Annotation
from tral_monai.errors import AnnotationError

SQUARE = ((0.1, 0.2), (10.3, 0), (10, 10), (0, 10.7))
HOLE = ((2, 2), (2, 4), (4, 4.123456789012345))
OUTSIDE = ((20, 20), (21, 20), (21, 21))
FAR = ((50, 50), (60, 50), (60, 60))

SHAPES = [
    Annotation(shapely.Polygon(SQUARE), "Tumor", "train", (200, 0, 0)),
    Annotation(shapely.Polygon(SQUARE, [HOLE, ((6, 6), (7, 6), (7, 7))]), "Tumor", "<\"'&\n>", (200, 0, 0)),
    Annotation(shapely.MultiPolygon([(SQUARE, [HOLE]), (FAR, [])]), "Tumor", None, (0, 0, 1)),
    Annotation(shapely.MultiPolygon([(FAR, [])]), "Stroma", "one part", None),
    Annotation(shapely.Polygon(SQUARE, [OUTSIDE]), "Stroma", "invalid: the hole lies outside", None),
    Annotation(shapely.Polygon(SQUARE, [HOLE]), None, "unclassified", (9, 9, 9)),
    Annotation(shapely.Polygon(SQUARE, [((2, 2), (3, 3), (2, 2), (2, 2))]), "Stroma", "a hole without area, as found"),
    Annotation(shapely.Polygon(FAR), "Box", properties={"asap": {"type": "Rectangle", "parent": "Any"}}),
    Annotation(shapely.Polygon(FAR, [((55, 54), (56, 54), (56, 55))]), "Box", properties={"asap": {"type": "Spline"}}),
    Annotation(shapely.Point(1, 2), "Mitosis", properties={"asap": {"type": "Dot"}}),
    Annotation(shapely.MultiPoint([(1, 2)]), None, properties={"asap": {"type": "PointSet"}}),
    Annotation(shapely.LineString([(1, 2), (3, 4), (5, 6)]), None, properties={"asap": {"type": "Measurement"}}),
]


def test_everything_comes_back_exactly(tmp_path):
    for name in ("a.xml", "a.xml.gz"):
        write_asap_xml(tmp_path / name, iter(SHAPES))
        back = read_asap_xml(tmp_path / name)
        assert [a.class_name for a in back] == [a.class_name for a in SHAPES]
        for written, read in zip(SHAPES, back, strict=True):
            assert read.geometry.wkb == written.geometry.wkb
            assert (read.name, read.color) == (written.name, written.color)
            own = {key: value for key, value in read.properties.get("asap", {}).items() if key == "type"}
            assert own == {k: v for k, v in written.properties.get("asap", {}).items() if k == "type"}
    write_asap_xml(tmp_path / "b.xml", back)
    assert read_asap_xml(tmp_path / "b.xml") == back


def test_the_file_is_as_asap_writes_it(tmp_path):
    write_asap_xml(tmp_path / "a.xml", [SHAPES[0]])
    assert (tmp_path / "a.xml").read_text() == (
        '<?xml version="1.0"?>\n<ASAP_Annotations>\n\t<Annotations>\n'
        '\t\t<Annotation Name="train" Type="Polygon" PartOfGroup="Tumor" Color="#C80000">\n\t\t\t<Coordinates>\n'
        '\t\t\t\t<Coordinate Order="0" X="0.1" Y="0.2" />\n\t\t\t\t<Coordinate Order="1" X="10.3" Y="0.0" />\n'
        '\t\t\t\t<Coordinate Order="2" X="10.0" Y="10.0" />\n\t\t\t\t<Coordinate Order="3" X="0.0" Y="10.7" />\n'
        "\t\t\t</Coordinates>\n\t\t</Annotation>\n\t</Annotations>\n\t<AnnotationGroups>\n"
        '\t\t<Group Name="Tumor" PartOfGroup="None" Color="#C80000">\n\t\t\t<Attributes />\n\t\t</Group>\n'
        "\t</AnnotationGroups>\n</ASAP_Annotations>\n"
    )


def test_areas_survive_a_program_that_drops_our_attribute(tmp_path):
    write_asap_xml(tmp_path / "a.xml", SHAPES[1:3])
    text = re.sub(r' Region="\w+"', "", (tmp_path / "a.xml").read_text())
    back = parse_asap_xml(text)
    assert len(back) == 3  # the region of two parts is now two regions
    expected = sum(shape.geometry.area for shape in SHAPES[1:3])
    assert sum(a.geometry.area for a in back) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotation(shapely.Point(1, 2), "None"), "cannot hold the class name 'None'"),
        (Annotation(shapely.Point(1, 2), ""), "cannot hold the class name ''"),
        (Annotation(shapely.Point(1, 2), "A [hole]"), r"cannot hold the class name 'A \[hole\]'"),
        (Annotation(shapely.Point(1, 2, 3), "A"), "no third coordinate; write GeoJSON"),
        (Annotation(shapely.Point(1, 2), name="a\x00"), r"XML cannot hold the character '\\x00'"),
        (Annotation(shapely.GeometryCollection([shapely.Point(1, 2)])), "hold a GeometryCollection; write GeoJSON"),
        (Annotation(shapely.Polygon()), "hold an empty Polygon"),
    ],
)
def test_what_asap_cannot_hold_is_refused(tmp_path, annotation, message):
    with pytest.raises(AnnotationError, match=rf"a\.xml, shape 1.*{message}"):
        write_asap_xml(tmp_path / "a.xml", [annotation])
    assert not list(tmp_path.iterdir())
