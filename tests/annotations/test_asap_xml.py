# SPDX-License-Identifier: Apache-2.0
import pytest
import shapely

from tral_monai.annotations.asap_xml import parse_asap_xml, read_asap_roi, read_asap_xml
from tral_monai.annotations.model import ShapeProblem
from tral_monai.errors import AnnotationError

# As ASAP 2 saves, with its default yellow for annotations and the colours at the groups.
ASAP = """<?xml version="1.0"?>
<ASAP_Annotations>
\t<Annotations>
\t\t<Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="metastases" Color="#F4FA58">
\t\t\t<Coordinates>
\t\t\t\t<Coordinate Order="1" X="10" Y="0" />
\t\t\t\t<Coordinate Order="0" X="0.25" Y="-1.5" />
\t\t\t\t<Coordinate Order="2" X="10" Y="10" />
\t\t\t</Coordinates>
\t\t</Annotation>
\t\t<Annotation Name="Annotation 1" Type="Rectangle" PartOfGroup="None" Color="#0000FF">
\t\t\t<Coordinates>
\t\t\t\t<Coordinate Order="0" X="0" Y="0" />
\t\t\t\t<Coordinate Order="1" X="4" Y="0" />
\t\t\t\t<Coordinate Order="2" X="4" Y="2" />
\t\t\t\t<Coordinate Order="3" X="0" Y="2" />
\t\t\t</Coordinates>
\t\t</Annotation>
\t\t<Annotation Name="" Type="Dot" PartOfGroup="mitosis" Color="#F4FA58">
\t\t\t<Coordinates><Coordinate Order="0" X="5" Y="6" /></Coordinates>
\t\t</Annotation>
\t</Annotations>
\t<AnnotationGroups>
\t\t<Group Name="tumor" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>
\t\t<Group Name="metastases" PartOfGroup="tumor" Color="#ff0080"><Attributes /></Group>
\t</AnnotationGroups>
</ASAP_Annotations>
"""


def ring(kind="Polygon", group="None", points=((0, 0), (9, 0), (9, 9), (0, 9)), more=""):
    rows = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(points))
    head = f'Annotation Name="n" Type="{kind}" PartOfGroup="{group}" {more}'
    return f"<{head}><Coordinates>{rows}</Coordinates></Annotation>"


def document(*rings):
    return f"<ASAP_Annotations><Annotations>{''.join(rings)}</Annotations></ASAP_Annotations>"


def test_what_asap_saves_is_understood():
    tumor, box, dot = parse_asap_xml(ASAP)
    assert shapely.get_coordinates(tumor.geometry).tolist() == [[0.25, -1.5], [10, 0], [10, 10], [0.25, -1.5]]
    assert (tumor.class_name, tumor.name, tumor.color) == ("metastases", "Annotation 0", (255, 0, 128))
    assert tumor.properties == {"asap": {"parent": "tumor"}}
    assert (box.class_name, box.color, box.geometry.area) == (None, (0, 0, 255), 8.0)
    assert box.properties == {"asap": {"type": "Rectangle"}}
    assert (dot.class_name, dot.name, dot.color) == ("mitosis", None, None)
    assert dot.geometry == shapely.Point(5, 6)


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE a [<!ENTITY e "x">]>',
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE a SYSTEM "http://localhost/a.dtd">',
    ],
)
def test_document_types_and_entities_are_refused(declaration):
    with pytest.raises(
        AnnotationError, match=r"a\.xml: the XML declares a document type or entities; they are refused"
    ):
        parse_asap_xml(f"<?xml version='1.0'?>{declaration}<ASAP_Annotations>&e;</ASAP_Annotations>", file="a.xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<ASAP_Annotations>\n<Annotations>\n", r"a\.xml, line 3, column 1: not valid XML \(no element found\)"),
        ("<ASAP_Annotations>\n  </x>", r"a\.xml, line 2, column 5: not valid XML \(mismatched tag\)"),
        ("<Annotations/>", "expected ASAP XML with the root ASAP_Annotations, but found Annotations"),
    ],
)
def test_malformed_files_are_named(text, message):
    with pytest.raises(AnnotationError, match=message):
        parse_asap_xml(text, file="a.xml")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            ring(group="A", points=((0, 0), (1, 1))),
            r"shape 2 \(class 'A', name 'n'\): a polygon needs at least 3 points",
        ),
        (ring(points=((0, 0), (1, "nan"), (1, 1))), "point 2 is not a finite number"),
        (ring(points=((0, 0), (1, "1,5"), (1, 1))), "point 2 has no numbers Order, X and Y"),
        (ring(points=()), "at least 3 points, but has 0"),
        (ring("Dot", points=()), "a Dot needs 1 or more finite points"),
        (ring("Measurement", points=((1, 1),)), "a Measurement needs 2 or more finite points"),
        (ring("Circle"), "expected a Type of Polygon, .*but found 'Circle'"),
        (ring(more='Color="red"'), "a Color like #64FE2E, but found 'red'"),
        (ring(group="B [hole]"), "a hole lies in no outline of the class B"),
    ],
)
def test_a_shape_that_cannot_be_used_is_named_or_noted(bad, message):
    text = document(ring(), bad, ring())
    with pytest.raises(AnnotationError, match=message):
        parse_asap_xml(text, file="a.xml")
    problems: list[ShapeProblem] = []
    assert len(parse_asap_xml(text, problems=problems)) == 2
    assert [p.kind for p in problems] == ["dropped"]


INNER = ((2, 2), (3, 2), (3, 3))


def test_a_hole_without_a_number_goes_to_the_outline_before_it():
    first, second = parse_asap_xml(document(ring(group="A"), ring(group="A [hole]", points=INNER), ring(group="A")))
    assert first.geometry.area == 81 - 0.5
    assert second.geometry.area == 81


def test_a_hole_at_the_end_goes_to_the_outline_of_its_class_around_it():
    far = ((50, 50), (60, 50), (60, 60))
    text = document(ring(group="A"), ring(group="A", points=far), ring(group="B"), ring(group="A [hole]", points=INNER))
    assert [a.geometry.area for a in parse_asap_xml(text)] == [80.5, 50.0, 81.0]


def test_an_encoding_named_in_the_declaration_does_not_matter(tmp_path):
    (tmp_path / "a.xml").write_text(ASAP.replace('"1.0"', '"1.0" encoding="latin-1"').replace("metastases", "Grüße"))
    assert read_asap_xml(tmp_path / "a.xml")[0].class_name == "Grüße"


# -- as QuPath's MONAI Label extension writes it ----------------------------------------------------------------------


def test_of_an_ellipse_qupath_writes_four_points():
    (found,) = parse_asap_xml(document(ring("Ellipse", points=((10, 0), (20, 20), (10, 40), (0, 20)))))
    assert found.geometry.bounds == (0, 0, 20, 40)
    assert found.geometry.area == pytest.approx(shapely.Point(0, 0).buffer(1, quad_segs=64).area * 10 * 20, rel=0.01)


def test_of_a_geometry_qupath_writes_the_points_of_all_rings():
    outline, hole, island = (
        ((x, y), (x + size, y), (x + size, y + size), (x, y + size), (x, y))
        for x, y, size in ((0, 0, 9), (2, 2, 3), (20, 0, 2))
    )
    (found,) = parse_asap_xml(document(ring("Geometry", "Tumor", (*outline, *hole, *island))))
    assert found.class_name == "Tumor"
    assert found.geometry.equals(
        shapely.MultiPolygon([shapely.box(0, 0, 9, 9) - shapely.box(2, 2, 5, 5), shapely.box(20, 0, 22, 2)])
    )
    (open_,) = parse_asap_xml(document(ring("Geometry", points=((0, 0), (4, 0), (4, 4)))))
    assert open_.geometry.area == 8.0
    with pytest.raises(AnnotationError, match=r"shape 1 .* needs at least 3 points"):
        parse_asap_xml(document(ring("Geometry", points=((0, 0), (4, 0)))))


@pytest.mark.parametrize(
    ("kind", "expected"), [("Line", "LineString"), ("Polyline", "LineString"), ("Points", "MultiPoint")]
)
def test_qupaths_lines_and_points_have_no_area(kind, expected):
    (found,) = parse_asap_xml(document(ring(kind)))
    assert found.geometry.geom_type == expected


def test_the_rectangle_that_a_submission_is_about():
    def roi(attributes):
        return read_asap_roi(f"<ASAP_Annotations><Annotations {attributes}/></ASAP_Annotations>", file="a.xml")

    assert roi('X="10" Y="-20" W="30" H="40.0"') == (10, -20, 30, 40)
    assert roi('X="0" Y="0" W="0" H="0"') is None  # the whole slide
    assert roi('Name=""') is None
    assert roi('X="10" Y="20" W="30" H="40" Model="m"') is None  # an answer of inference
    assert read_asap_roi("<ASAP_Annotations/>") is None
    with pytest.raises(
        AnnotationError, match=r"a\.xml: expected whole numbers as X, Y, W and H .* \['x', '0', '3', '4'\]"
    ):
        roi('X="x" W="3" H="4"')
    with pytest.raises(AnnotationError, match="declares a document type or entities"):
        read_asap_roi('<!DOCTYPE a [<!ENTITY e "x">]><ASAP_Annotations/>')
