# SPDX-License-Identifier: Apache-2.0
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from tral_monai.annotations import Annotation, write_geojson
from tral_monai.annotations.nuclei.qupath import read_qupath
from tral_monai.errors import AnnotationError


def nucleus(left, top, right, bottom, class_name="tumor", kind="detection", **keys):
    return Annotation(shapely.box(left, top, right, bottom), class_name, object_type=kind, **keys)


def rectangle(left, top, right, bottom, class_name=None, name=None):
    return Annotation(shapely.box(left, top, right, bottom), class_name, name=name)


def write(folder, objects, stem="a", suffix=".geojson", size=(100, 80)):
    folder.mkdir(exist_ok=True)
    Image.new("RGB", size).save(folder / f"{stem}.png")
    write_geojson(folder / f"{stem}{suffix}", objects)
    return folder


@pytest.mark.parametrize("suffix", [".geojson", ".json", ".geojson.gz"])
def test_detections_and_the_nuclei_of_cells(tmp_path, suffix):
    inner = {"type": "Polygon", "coordinates": [[[42, 42], [48, 42], [48, 47], [42, 42]]]}
    objects = [
        nucleus(2, 3, 12, 7),
        nucleus(40, 40, 50, 50, "plasma", "cell", extra={"nucleusGeometry": inner}),
        nucleus(60, 40, 70, 50, "plasma", "cell"),
        nucleus(10, 10, 20, 25, None),
        nucleus(10, 10, 20, 25, "Ignore*"),
        rectangle(0, 0, 90, 70, "Tumor region"),  # beside detections, an annotation is no nucleus
        nucleus(0, 0, 50, 50, "x", "tile"),
    ]
    (field,) = read_qupath(write(tmp_path, objects, suffix=suffix), mpp=0.25)
    assert field.boxes_px.tolist() == [[2, 3, 12, 7], [42, 42, 48, 47], [60, 40, 70, 50], *[[10, 10, 20, 25]] * 2]
    assert field.classes == ("tumor", "plasma", "plasma", "ignored", "ignored")
    assert field.ignored.tolist() == [False, False, False, True, True]
    assert (field.name, field.image, field.mpp, field.slide) == ("a", tmp_path / "a.png", 0.25, None)
    assert (field.width_px, field.height_px, field.problems) == (100, 80, ())


def test_annotations_are_the_nuclei_where_there_is_nothing_else(tmp_path):
    (field,) = read_qupath(write(tmp_path, [rectangle(5, 5, 9, 9, "tumor")]), mpp=1)
    assert field.classes == ("tumor",)


def test_an_empty_export_is_a_field_without_nuclei(tmp_path):
    (field,) = read_qupath(write(tmp_path, []), mpp=1)
    assert len(field) == 0


def test_a_field_limits_the_annotated_area(tmp_path):
    objects = [
        rectangle(20, 10, 60, 50, name="Field"),
        nucleus(30, 20, 40, 30),
        nucleus(14, 20, 24, 30),  # 40 % inside
        nucleus(80, 60, 90, 70),
    ]
    (field,) = read_qupath(write(tmp_path, objects), mpp=1)
    assert (field.name, field.left_px, field.top_px, field.width_px, field.height_px) == ("a", 20, 10, 40, 40)
    assert field.boxes_px.tolist() == [[10, 10, 20, 20], [0, 10, 4, 20]]
    assert field.ignored.tolist() == [False, True]
    assert field.problems == ("a.geojson: nuclei outside of every annotation 'field' left out: 1",)


def test_several_fields_of_an_image(tmp_path):
    objects = [
        rectangle(0, 0, 40, 40, "field"),
        rectangle(50, 0, 200, 40, "field", name="hot spot"),
        nucleus(10, 10, 20, 20),
        nucleus(60, 10, 70, 20, "plasma"),
    ]
    first, second = read_qupath(write(tmp_path, objects, "TCGA-A1-A0SP-01Z-00-DX1"), mpp=1)
    assert (first.name, second.name) == ("TCGA-A1-A0SP-01Z-00-DX1_1", "TCGA-A1-A0SP-01Z-00-DX1_hot spot")
    assert (first.classes, second.classes) == (("tumor",), ("plasma",))
    assert second.boxes_px.tolist() == [[10, 10, 20, 20]]
    assert (second.left_px, second.width_px) == (50, 50)  # up to the image's edge
    assert (first.slide, first.patient, first.hospital) == ("TCGA-A1-A0SP-01Z-00-DX1", "TCGA-A1-A0SP", "A1")


def test_a_slide_knows_its_mpp(tmp_path):
    tifffile.imwrite(
        tmp_path / "s1.tif",
        np.full((512, 768, 3), 200, np.uint8),
        tile=(256, 256),
        photometric="rgb",
        resolution=(20000, 20000),  # per centimetre: 0.5 um
        resolutionunit="CENTIMETER",
    )
    write_geojson(tmp_path / "s1.geojson", [rectangle(500, 100, 700, 300, name="field"), nucleus(600, 200, 610, 220)])
    (field,) = read_qupath(tmp_path)
    assert (field.slide, field.left_px, field.top_px, field.width_px) == ("s1", 500, 100, 200)
    assert field.mpp == pytest.approx(0.5)
    assert field.boxes_px.tolist() == [[100, 100, 110, 120]]
    (tmp_path / "s1.tif").write_text("broken")
    with pytest.raises(AnnotationError, match=r"s1\.tif"):
        read_qupath(tmp_path)


def test_a_table_says_whose_the_images_are(tmp_path):
    write(tmp_path, [nucleus(1, 1, 5, 5)])
    write(tmp_path, [], "b")
    (tmp_path / "images.csv").write_text("image,patient,hospital,slide,mpp\na.png,p1,h1,s1,0.4\nb,p2,,,0.3\n")
    a, b = read_qupath(tmp_path)
    assert (a.patient, a.hospital, a.slide, a.mpp) == ("p1", "h1", "s1", 0.4)
    assert (b.patient, b.hospital, b.slide, b.mpp) == ("p2", None, None, 0.3)
    assert [field.mpp for field in read_qupath(tmp_path, mpp=1)] == [1, 1]


def test_nuclei_that_cannot_be_used_are_counted(tmp_path):
    objects = [
        nucleus(95, 10, 105, 20),
        nucleus(110, 10, 120, 20),
        Annotation(shapely.Point(4, 4), "tumor", object_type="detection"),
        nucleus(1, 1, 5, 5),
    ]
    (field,) = read_qupath(write(tmp_path, objects), mpp=1)
    assert field.boxes_px.tolist() == [[95, 10, 100, 20], [1, 1, 5, 5]]
    assert field.problems == (
        "a.geojson: objects without an outline left out: 1",
        "a: 1 box outside the annotated area left out",
        "a: 1 box partly outside the annotated area clipped",
    )
    feature = '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[1,2],[3,4]]]},"properties":{}}'
    (tmp_path / "a.geojson").write_text(f"[{feature}]")
    (field,) = read_qupath(tmp_path, mpp=1)
    assert (len(field), len(field.problems)) == (0, 1)
    assert "a polygon needs at least 3 points, but has 2 (dropped)" in field.problems[0]
    assert field.problems[0].startswith("a.geojson, shape 1")
    broken = {"nucleusGeometry": {"type": "Circle"}}
    with pytest.raises(AnnotationError, match=r"a\.geojson, nucleus of cell shape 1 .*: expected a geometry of type"):
        read_qupath(write(tmp_path, [nucleus(1, 1, 5, 5, kind="cell", extra=broken)]), mpp=1)


def test_what_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(AnnotationError, match="expected images with a GeoJSON of the same name, but found no GeoJSON"):
        read_qupath(tmp_path)
    write(tmp_path, [])
    with pytest.raises(AnnotationError, match=r"a\.png: a plain image records no micrometres per pixel; give mpp="):
        read_qupath(tmp_path)
    Image.new("RGB", (5, 5)).save(tmp_path / "b.png")
    with pytest.raises(AnnotationError, match=r"b\.png: there is no export 'b\.geojson' beside it"):
        read_qupath(tmp_path, mpp=1)
    write_geojson(tmp_path / "c.geojson", [])
    problems: list[str] = []
    assert [field.name for field in read_qupath(tmp_path, mpp=1, problems=problems)] == ["a"]
    assert "c.geojson: there is no image 'c' of any known kind beside it" in problems[0]
    assert len(problems) == 2
    shutil.copy(tmp_path / "a.geojson", tmp_path / "a.json")
    with pytest.raises(AnnotationError, match=r"'a\.geojson' and 'a\.json' belong to one image; remove one"):
        read_qupath(tmp_path, mpp=1)


def test_a_field_beyond_the_image_is_refused(tmp_path):
    with pytest.raises(
        AnnotationError, match=r"a\.png: an annotation 'field' covers no pixel of the image of 100 x 80"
    ):
        read_qupath(write(tmp_path, [rectangle(120, 0, 150, 40, "field")]), mpp=1)


def test_two_fields_of_one_name_are_refused(tmp_path):
    objects = [rectangle(0, 0, 40, 40, "field", name="x"), rectangle(50, 0, 90, 40, "field", name="x")]
    with pytest.raises(AnnotationError, match=r"the field names \['a_x'\] occur more than once"):
        read_qupath(write(tmp_path, objects), mpp=1)


def test_the_real_outlines(tral_data, tmp_path):
    shutil.copy(tral_data / "gyn_polygons/hgsc_stroma_he.jpg", tmp_path / "hgsc.jpg")
    shutil.copy(tral_data / "gyn_polygons/hgsc_stroma_nuclei.geojson", tmp_path / "hgsc.geojson")
    (field,) = read_qupath(tmp_path, mpp=0.5)
    assert Counter(field.classes) == {"connective": 387, "inflammatory": 31, "neoplastic": 5}
    assert (field.width_px, field.height_px) == (1500, 1500)
    assert field.boxes_px[0].tolist() == [1430, 30, 1463, 51]


def test_ten_thousand_nuclei_take_seconds(tmp_path):
    objects = [nucleus(x, y, x + 6, y + 5) for x in range(0, 2000, 10) for y in range(0, 500, 10)]
    write(tmp_path, objects, size=(2000, 1000))
    started = time.process_time()
    (field,) = read_qupath(tmp_path, mpp=1)
    assert len(field) == 10_000
    assert time.process_time() - started < 10
