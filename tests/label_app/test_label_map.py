# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from PIL import Image

pytest.importorskip("monailabel")

from tests.label_app.test_image_answer import shapes
from tests.label_app.test_label_map_file import write
from tests.rounds.regions.small_site import CONF, ask, box, geojson, make_site, qupath_xml
from tests.rounds.regions.small_site import feature as geojson_feature
from tral_monai.errors import AnnotationError, OutputError, UnknownItemError
from tral_monai.label_app.datastore import SlideDatastore
from tral_monai.label_app.image_answer import MAX_PX, label_map, write_label_map
from tral_monai.label_app.label_map import is_label_map, label_map_annotations, label_map_as_geojson
from tral_monai.label_app.label_map_file import LabelMap, Segment, read_label_map
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite

NUCLEI = {"label_info": [{"name": "Lymphocyte", "idx": 1}, {"name": "Epithelial", "idx": 2}]}
FIELD = (96, 64)  # width, height


def site_of(folder: Path, tasks: str, *, size: tuple[int, int] = FIELD) -> AnnotationSite:
    """A site of one picture of 0.25 um per pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 150)).save(folder / "field.one.png")
    site = AnnotationSite(folder, read_settings({**CONF, "tasks": tasks, "mpp": "0.25"}))
    site.labels_dir.mkdir(parents=True, exist_ok=True)
    return site


@pytest.fixture
def nuclei(tmp_path: Path) -> AnnotationSite:
    return site_of(tmp_path / "studies", "nuclei")


@pytest.fixture
def tissue(tmp_path: Path) -> AnnotationSite:
    return site_of(tmp_path / "studies", "tissue")


def pixels(*rows: str) -> npt.NDArray[np.uint16]:
    """A layer of a character per pixel."""
    return np.array([[[0 if one == "." else int(one) for one in row] for row in rows]], np.uint16)


def found(
    site: AnnotationSite, layers: npt.NDArray[np.uint16], info: dict[str, Any], **more: Any
) -> list[tuple[str | None, shapely.Geometry]]:
    annotations = label_map_annotations(site, LabelMap(layers, more.pop("segments", None)), info, **more)
    return [(one.class_name, one.geometry) for one in annotations]


def drawn() -> npt.NDArray[np.uint8]:
    """Two lymphocytes of 8 x 6 and 4 x 4 pixels, and an epithelial cell of 10 x 10."""
    canvas = np.zeros((64, 96), np.uint8)
    canvas[5:11, 10:18], canvas[40:44, 70:74], canvas[20:30, 50:60] = 1, 1, 2
    return canvas


@pytest.mark.parametrize(
    ("name", "is_one"), [("a.nrrd", True), ("a.seg.nrrd", True), ("a.NII.gz", True), ("a.nii", True), ("a.xml", False)]
)
def test_which_files_are_label_maps(name: str, is_one: bool) -> None:
    assert is_label_map(name) == is_one
    assert not is_label_map("a.geojson.gz")


def test_an_answer_that_is_submitted_unchanged_comes_back_as_it_was(nuclei: AnnotationSite, tmp_path: Path) -> None:
    outlines = [shapely.box(3, 4, 17, 9), shapely.box(30, 0, 36, 64) - shapely.box(32, 10, 34, 20)]
    answer = label_map(shapes((outlines[0], 1, 0.9), (outlines[1], 2, 0.8)), FIELD)
    file = write_label_map(answer, ".nrrd", nuclei.studies / "field.one.png")
    back = found(nuclei, read_label_map(file, FIELD).layers, NUCLEI)
    file.unlink()
    assert [name for name, _ in back] == ["Region", "Lymphocyte", "Epithelial"]
    for (_, polygon), expected in zip(back[1:], outlines, strict=True):
        assert polygon.equals(expected)
    assert back[2][1].area == 6 * 64 - 20


def test_nuclei_are_one_polygon_per_connected_area(nuclei: AnnotationSite) -> None:
    layers = pixels("11..1", "11.1.", ".....", "22222")
    back = found(nuclei, layers, NUCLEI)
    assert [(name, polygon.bounds) for name, polygon in back] == [
        ("Region", (0, 0, 5, 4)),
        ("Lymphocyte", (0, 0, 2, 2)),
        ("Lymphocyte", (4, 0, 5, 1)),  # pixels that meet only at a corner are not connected
        ("Lymphocyte", (3, 1, 4, 2)),
        ("Epithelial", (0, 3, 5, 4)),
    ]


def test_tissue_is_one_area_per_class_with_its_holes(tissue: AnnotationSite) -> None:
    layers = pixels("111.2", "1.1.2", "111..", "....1")
    info = {"label_info": [{"name": "Tumor", "idx": 1}, {"name": "Stroma", "idx": 2}]}
    region, tumor, stroma = found(tissue, layers, info)
    assert region[1].equals(shapely.box(0, 0, 5, 4))
    assert tumor[0] == "Tumor"
    assert tumor[1].equals(
        shapely.union_all([shapely.box(0, 0, 3, 3) - shapely.box(1, 1, 2, 2), shapely.box(4, 3, 5, 4)])
    )
    assert (stroma[0], stroma[1].bounds) == ("Stroma", (4, 0, 5, 2))


def test_with_both_tasks_the_name_says_what_an_area_is(tmp_path: Path) -> None:
    site = site_of(tmp_path, "tissue, nuclei")
    names = ["Tumor", "Lymphocyte", "Nobody", "other"]
    info = {"label_info": [{"name": name, "idx": value} for value, name in enumerate(names, 1)]}
    back = found(site, pixels("1.1.2.2", ".......", "3.3.4.4"), info)
    counts = {name: sum(other == name for other, _ in back) for name in names}
    assert counts == {"Tumor": 1, "Lymphocyte": 2, "Nobody": 2, "other": 2}
    with pytest.raises(AnnotationError, match=r"nothing says which class .*; send `label_info`, a list of"):
        found(site, pixels("1"), {})
    assert [name for name, _ in found(site, pixels("."), {})] == ["Region"]


def test_without_names_values_are_those_of_the_models_answers(tmp_path: Path) -> None:
    assert [name for name, _ in found(site_of(tmp_path / "n", "nuclei"), pixels("12"), {})[1:]] == [
        "Lymphocyte",
        "Epithelial",
    ]
    studies = tmp_path / "t"
    conf = {"tasks": "tissue", "tissue_classes": "Background, Tumor, Stroma"}
    site = AnnotationSite(site_of(studies, "tissue").studies, read_settings(conf))
    assert [name for name, _ in found(site, pixels("123"), {})[1:]] == ["Tumor", "Stroma", "Undefined"]


def test_values_without_a_name_are_told_apart(nuclei: AnnotationSite) -> None:
    back = found(nuclei, pixels("1.7.9"), {"label_info": [{"name": "Lymphocyte", "idx": 1}]})
    assert [name for name, _ in back[1:]] == ["Lymphocyte", "value 7", "value 9"]
    assert [name for name, _ in found(nuclei, pixels("1"), {"label_info": []})[1:]] == ["value 1"]


def test_names_in_the_file_come_before_label_info_and_what_is_no_label_is_left_out(nuclei: AnnotationSite) -> None:
    layers = np.concatenate([pixels("13", "33"), pixels("5.", "..")])
    segments = (Segment("Epithelial", 1, 0), Segment("background", 3, 0), Segment("Lymphocyte", 5, 1))
    back = found(nuclei, layers, NUCLEI, segments=segments)
    assert [name for name, _ in back] == ["Region", "Epithelial", "Lymphocyte"]
    assert back[1][1].equals(back[2][1])


def test_segments_that_overlap_are_not_counted_twice_as_tissue(tissue: AnnotationSite) -> None:
    layers = np.concatenate([pixels("11.", "..."), pixels(".1.", "...")])
    _, (name, area) = found(tissue, layers, {}, segments=(Segment("Tumor", 1, 0), Segment("Tumor", 1, 1)))
    assert (name, area.area) == ("Tumor", 2)


@pytest.mark.parametrize(
    "rows", [7, ["Tumor"], [{"name": "Tumor"}], [{"name": "Tumor", "idx": "one"}], [{"name": "Tumor", "idx": None}]]
)
def test_a_label_info_that_cannot_be_understood(nuclei: AnnotationSite, rows: Any) -> None:
    with pytest.raises(AnnotationError, match=r"expected `label_info` as a list of \{.*\}, but .* came"):
        found(nuclei, pixels("1"), {"label_info": rows})


def test_a_gap_in_the_numbers_would_give_wrong_classes(nuclei: AnnotationSite) -> None:
    """Slicer numbers segments before it leaves `background` out, and the values of its label map after."""
    rows = [{"name": "Lymphocyte", "idx": 2}, {"name": "Epithelial", "idx": 3}]
    with pytest.raises(AnnotationError, match=r"numbers the segments \[2, 3\], .* delete the segments called backgr"):
        found(nuclei, pixels("12"), {"label_info": rows})
    named_zero = [{"name": "background", "idx": 0}, {"name": "Lymphocyte", "idx": 1}]
    assert [name for name, _ in found(nuclei, pixels("1."), {"label_info": named_zero})[1:]] == ["Lymphocyte"]


def test_a_picture_instead_of_a_label_map(nuclei: AnnotationSite) -> None:
    layers = np.arange(400, dtype=np.uint16).reshape(1, 20, 20)
    with pytest.raises(AnnotationError, match="expected a label map with a value per class, but it has 399 values"):
        found(nuclei, layers, {})


def test_slides_take_no_label_maps(tmp_path: Path) -> None:
    site = site_of(tmp_path / "s", "nuclei", size=(MAX_PX + 1, 1))
    file = write(tmp_path / "x.nrrd", np.ones((1, 1, 3), np.uint8))
    with (
        pytest.raises(AnnotationError, match=r"has 8193 x 1 pixels; .* at most 8192. Submit .* as polygons"),
        label_map_as_geojson(site, "field.one", file, {}),
    ):
        pass
    with pytest.raises(UnknownItemError, match="'nobody'"), label_map_as_geojson(site, "nobody", file, {}):
        pass


def test_no_temporary_folder(nuclei: AnnotationSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "x.nrrd", drawn()[None])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="no temporary folder"), label_map_as_geojson(nuclei, "field.one", file, {}):
        pass


# -- through the datastore --------------------------------------------------------------------------------------------


def test_a_submission_from_slicer_is_in_the_ledger(
    nuclei: AnnotationSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    asked = Region("field.one.png", 0, 0, 48, 48)
    ask(nuclei, "nuclei", asked)
    store = SlideDatastore(str(nuclei.studies), nuclei, auto_reload=False)
    upload = write(tmp_path / "upload.nrrd", drawn()[None], (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    params = {"label_info": [*NUCLEI["label_info"], {"name": "unused", "idx": 3}], "client_id": "anna"}
    assert store.save_label("field.one", str(upload), "final", params) == "field.one"
    assert [path.name for path in nuclei.labels_dir.iterdir()] == ["field.one.geojson"]
    assert store.get_label_uri("field.one", "final") == str(nuclei.labels_dir / "field.one.geojson")
    assert store.get_label_info("field.one", "final")["client_id"] == "anna"
    report = sync_labels(nuclei)["nuclei"]
    assert (report.unknown_names, report.problems) == ((), ())
    with nuclei.tasks["nuclei"].ledger() as ledger:
        (answer,) = [one for one in ledger.answers() if one.region.id == asked.id]
        ((name, nucleus),) = answer.shapes
        assert (name, nucleus.bounds) == ("Lymphocyte", (10, 5, 18, 11))
        everything = {(name, one.bounds) for answer in ledger.answers() for name, one in answer.shapes}
    assert everything == {
        ("Lymphocyte", (10, 5, 18, 11)),
        ("Lymphocyte", (70, 40, 74, 44)),
        ("Epithelial", (50, 20, 60, 30)),
    }
    assert list(own.iterdir()) == []


def test_an_empty_label_map_says_that_there_is_nothing(nuclei: AnnotationSite, tmp_path: Path) -> None:
    asked = Region("field.one.png", 0, 0, 48, 48)
    ask(nuclei, "nuclei", asked)
    store = SlideDatastore(str(nuclei.studies), nuclei, auto_reload=False)
    upload = write(tmp_path / "upload.nii.gz", np.zeros((1, 64, 96), np.uint8))
    store.save_label("field.one", str(upload), "final", {"label_info": []})
    assert sync_labels(nuclei)["nuclei"].labels == 0
    with nuclei.tasks["nuclei"].ledger() as ledger:
        assert {answer.region.id: answer.shapes for answer in ledger.answers()}[asked.id] == ()


def test_names_that_no_task_knows_are_listed(nuclei: AnnotationSite, tmp_path: Path) -> None:
    store = SlideDatastore(str(nuclei.studies), nuclei, auto_reload=False)
    upload = write(tmp_path / "upload.nrrd", drawn()[None])
    store.save_label("field.one", str(upload), "final", {"label_info": [{"name": "Lymphocyte", "idx": 1}]})
    report = sync_labels(nuclei)["nuclei"]
    assert report.unknown_names == ("value 2",)
    assert report.set_aside == {"value 2": 1}


def test_a_later_label_map_replaces_an_earlier_one_and_a_wrong_one_does_not(
    nuclei: AnnotationSite, tmp_path: Path
) -> None:
    store = SlideDatastore(str(nuclei.studies), nuclei, auto_reload=False)
    kept = nuclei.labels_dir / "field.one.geojson"
    kept.write_text(geojson(geojson_feature("Lymphocyte", box(0, 0, 9, 9))))
    store.save_label("field.one", str(write(tmp_path / "a.nrrd", drawn()[None])), "final", NUCLEI)
    before = kept.read_bytes()
    assert before.count(b'"Lymphocyte"') == 2
    wrong = write(tmp_path / "b.nrrd", np.ones((1, 64, 95), np.uint8))
    with pytest.raises(AnnotationError, match="the label map has 95 x 64 pixels, but its image has 96 x 64"):
        store.save_label("field.one", str(wrong), "final", NUCLEI)
    assert kept.read_bytes() == before
    (tmp_path / "c.xml").write_text(qupath_xml([("Lymphocyte", "Polygon", box(1, 1, 9, 9))]))
    store.save_label("field.one", str(tmp_path / "c.xml"), "final", {})
    assert sorted(path.name for path in nuclei.labels_dir.iterdir()) == ["field.one.geojson", "field.one.xml"]


def test_the_picture_of_a_region_answers_that_region_of_its_slide(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.tif")
    Image.new("RGB", FIELD).save(tmp_path / "a-patch-100_200_96_64.png")
    store = SlideDatastore(str(tmp_path), site, auto_reload=False)
    upload = write(tmp_path / "upload.nrrd", drawn()[None])
    assert store.save_label("a-patch-100_200_96_64", str(upload), "final", NUCLEI) == "a-patch-100_200_96_64"
    sync_labels(site)
    with site.tasks["nuclei"].ledger() as ledger:
        (answer,) = ledger.answers()
    assert answer.region.bbox_level0 == (100, 200, 96, 64)
    assert sorted(shape.bounds for _, shape in answer.shapes)[0] == (110, 205, 118, 211)
