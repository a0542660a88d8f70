# SPDX-License-Identifier: Apache-2.0
import collections
import time

import pytest
import shapely

from tral_monai.annotations import Annotation, polygonal, read_annotations, write_asap_xml, write_geojson
from tral_monai.annotations.model import ShapeProblem
from tral_monai.errors import AnnotationError


def test_the_content_decides_not_the_suffix(tmp_path):
    annotation = Annotation(shapely.box(0, 0, 2, 2), "Tumor", color=(1, 2, 3))
    write_geojson(tmp_path / "g.json", [annotation])
    write_asap_xml(tmp_path / "a.xml.gz", [annotation])
    (tmp_path / "g.json").rename(tmp_path / "g.xml")
    (tmp_path / "a.xml.gz").rename(tmp_path / "a.geojson")
    assert read_annotations(tmp_path / "g.xml") == read_annotations(tmp_path / "a.geojson") == [annotation]


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("  name,x", "'n'")])
def test_other_files_are_refused(tmp_path, text, found):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(
        AnnotationError, match=rf"a\.csv: expected QuPath GeoJSON or ASAP XML, but .* starts with {found}"
    ):
        read_annotations(tmp_path / "a.csv")


# Classes as the data set's description counts them.
REAL = {
    "gyn_polygons/cervix_biopsy_tissue.geojson": {"blood": 17, "slime": 15, "gland": 12, "stroma": 8, "cin": 4},
    "gyn_polygons/hgsc_stroma_nuclei.geojson": {"connective": 387, "inflammatory": 31, "neoplastic": 5},
    "gyn_polygons/hgsc_slide_tissue.geojson.gz": {
        "stroma": 1170, "tumor": 983, "omental_fat": 821, "hemorragia": 411, "necrosis": 290, "serum": 37
    },
    "slides/colon_polyp_lower.geojson": None,
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files_come_back_exactly_through_both_formats(tral_data, tmp_path, name):
    started = time.perf_counter()
    annotations = read_annotations(tral_data / name)
    if REAL[name] is not None:
        assert collections.Counter(a.class_name for a in annotations) == REAL[name]
    write_geojson(tmp_path / "a.geojson.gz", annotations)
    assert read_annotations(tmp_path / "a.geojson.gz") == annotations
    write_asap_xml(tmp_path / "a.xml", annotations)
    back = read_annotations(tmp_path / "a.xml")
    assert [a.geometry.wkb for a in back] == [a.geometry.wkb for a in annotations]
    assert [(a.class_name, a.name, a.color) for a in back] == [(a.class_name, a.name, a.color) for a in annotations]
    assert time.perf_counter() - started < 60


def test_the_slide_of_3712_regions_is_repaired_by_name(tral_data):
    problems: list[ShapeProblem] = []
    annotations = read_annotations(tral_data / "gyn_polygons/hgsc_slide_tissue.geojson.gz", problems=problems)
    assert len(annotations) == 3712
    assert problems == []
    areas = [polygonal(a, file="h", index=i, problems=problems) for i, a in enumerate(annotations)]
    assert all(area is not None and area.is_valid for area in areas)
    assert {p.kind for p in problems} == {"repaired"}
    assert len(problems) == sum(not a.geometry.is_valid for a in annotations) == 41
    assert min(a.geometry.bounds[0] for a in annotations) < 0
