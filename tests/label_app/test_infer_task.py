# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from PIL import Image

pytest.importorskip("monailabel")

from tests.inference.nuclei.disc_fields import draw_discs, scattered_discs
from tests.label_app.small_models import (
    COLOURS,
    NAMES,
    PATTERN,
    nucleus_checkpoint,
    tissue_checkpoint,
    write_painted_slide,
)
from tral_monai.annotations.asap_xml import read_asap_xml
from tral_monai.errors import BusyError, CheckpointError, ConfigError, SlideError, UnknownItemError
from tral_monai.label_app.infer_task import SiteInferTask
from tral_monai.label_app.wsi_answer import write_answer
from tral_monai.label_app.wsi_result import WsiResult
from tral_monai.networks.checkpoint import load_checkpoint, save_checkpoint
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite

TILE = 128
FIELD = (300, 260)
DISCS = scattered_discs(FIELD, 30, seed=3, radii=(6, 12))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tissue_checkpoint(folder / "tissue.pt", write_painted_slide(folder / "painted.tif"))
    nucleus_checkpoint(folder / "nuclei.pt")
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    write_painted_slide(folder / "painted.x.tiff")
    shutil.copy(folder / "painted.x.tiff", folder / "renamed.svs")  # what a file is says its content
    Image.fromarray(draw_discs(FIELD, DISCS)).save(folder / "field.png")
    return folder


@pytest.fixture(scope="module")
def site(studies: Path, models: Path) -> AnnotationSite:
    conf = {"device": "cpu", "tissue_checkpoint": str(models / "tissue.pt")}
    return AnnotationSite(studies, read_settings({**conf, "nuclei_checkpoint": str(models / "nuclei.pt")}))


@pytest.fixture(scope="module")
def tissue(site: AnnotationSite) -> SiteInferTask:
    return SiteInferTask(site.task("tissue"))


@pytest.fixture(scope="module")
def nuclei(site: AnnotationSite) -> SiteInferTask:
    return SiteInferTask(site.task("nuclei"))


def area(result: WsiResult, name: str) -> Any:
    value = result.shapes.values[name]
    return shapely.union_all(result.shapes.polygons[result.shapes.labels == value])


def cells(character: str, rows: tuple[int, int] = (0, 99), columns: tuple[int, int] = (0, 99)) -> Any:
    boxes = [
        shapely.box(column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
        for row, line in enumerate(PATTERN)
        for column, found in enumerate(line)
        if found == character and rows[0] <= row < rows[1] and columns[0] <= column < columns[1]
    ]
    return shapely.union_all(boxes)


def test_what_clients_are_told(tissue: SiteInferTask, nuclei: SiteInferTask, models: Path) -> None:
    info = tissue.info()
    assert info["type"] == "segmentation"
    assert info["labels"] == {"Stroma": 1, "Muscle": 2, "Blood": 3, "Undefined": 4}
    assert info["dimension"] == 2
    assert info["config"] == {"multi_gpu": False, "undefined_below": 0.6}
    assert info["pathology"] is True
    assert info["nuclick"] is False
    assert nuclei.info()["labels"] == {"tumour": 1, "lymphocyte": 2}
    assert nuclei.info()["config"] == {"multi_gpu": False, "min_score": 0.5}
    assert None not in [*info.values(), *nuclei.info().values()]
    assert tissue.is_valid()
    assert tissue.get_path() is None, "the lab's own checkpoint is not the server's to replace"


def test_without_a_model_there_is_nothing_to_infer_with(tmp_path: Path) -> None:
    write_painted_slide(tmp_path / "a.tif")
    task = SiteInferTask(AnnotationSite(tmp_path, read_settings({"device": "cpu"})).task("tissue"))
    assert not task.is_valid()
    assert task.get_path() is None
    assert task.get_path(validate=False) == str(tmp_path / "active_learning" / "tissue" / "model.pt")
    assert "Undefined" in task.info()["labels"]
    with pytest.raises(UnknownItemError, match="there is no trained model 'tissue' yet; label a round and train"):
        task.infer_slide({"image": "a"})


@pytest.mark.parametrize("image", ["painted.x", "painted.x.tiff", "renamed"])
def test_a_whole_slide(tissue: SiteInferTask, image: str) -> None:
    result = tissue.infer_slide({"image": image, "location": [0, 0], "size": [0, 0]})
    assert result.region == (0, 0, 1280, 768)
    assert result.shapes.counts() == {"Stroma": 1, "Muscle": 1, "Blood": 1, "Undefined": 0}  # merged, not tile by tile
    for character, name in (("S", "Stroma"), ("M", "Muscle"), ("B", "Blood")):
        assert area(result, name).equals(cells(character))
    assert dict(result.shapes.colours) | COLOURS == dict(result.shapes.colours)
    assert result.warnings == ()
    assert set(result.latencies) == {"pre", "infer", "invert", "post", "write", "total"}
    assert result.latencies["total"] >= result.latencies["infer"] > 0


def test_qupaths_region_through_asap(tissue: SiteInferTask, tmp_path: Path) -> None:
    request = {"image": "painted.x", "level": 0, "location": [512, 200], "size": [600, 300], "tile_size": [1024, 1024],
               "min_poly_area": 30, "foreground": [], "background": [], "max_workers": 1, "output": "asap"}  # fmt: skip
    result = tissue.infer_slide(request)
    assert result.region == (512, 200, 600, 300)
    # Tiles with their centre inside: columns 4 to 8 (576 to 1088 px), rows 2 and 3 (320 and 448 px).
    for character, name in (("S", "Stroma"), ("M", "Muscle"), ("B", "Blood")):
        assert area(result, name).equals(cells(character, (2, 4), (4, 9)))
    found = read_asap_xml(write_answer(result, request["output"], tmp_path)["file"])
    drawn = shapely.union_all([annotation.geometry for annotation in found if annotation.class_name == "Stroma"])
    assert drawn.equals(cells("S", (2, 4), (4, 9)))


def test_tiles_of_dsa_are_merged(tissue: SiteInferTask) -> None:
    tiles = [{"location": [x, 0], "size": [640, 768]} for x in (0, 640)]
    whole = tissue.infer_slide({"image": "painted.x"})
    tiled = tissue.infer_slide({"image": "painted.x", "wsi_tiles": tiles})
    assert tiled.region == (0, 0, 1280, 768)
    assert tiled.shapes.counts() == whole.shapes.counts()
    assert all(area(tiled, name).equals(area(whole, name)) for name in NAMES)


def test_a_region_has_the_tissue_mask_of_its_slide(tissue: SiteInferTask) -> None:
    """A region of stained tissue alone shows no glass; by itself it would have another mask."""
    result = tissue.infer_slide({"image": "painted.x", "location": [0, 0], "size": [256, 256]})
    assert result.shapes.counts() == {"Stroma": 0, "Muscle": 0, "Blood": 0, "Undefined": 0}


def test_settings_of_the_model_and_small_shapes(tissue: SiteInferTask) -> None:
    strict = tissue.infer_slide({"image": "painted.x", "undefined_below": 1.0})
    assert strict.shapes.counts() == {"Stroma": 0, "Muscle": 0, "Blood": 0, "Undefined": 1}
    large = tissue.infer_slide({"image": "painted.x", "min_poly_area": 4 * TILE**2 + 1})
    assert large.shapes.counts() == {"Stroma": 1, "Muscle": 1, "Blood": 0, "Undefined": 0}


def test_nuclei_of_a_field_and_of_a_part_of_it(nuclei: SiteInferTask, tmp_path: Path) -> None:
    whole = nuclei.infer_slide({"image": "field", "mpp": 0.25})
    assert len(whole.shapes) >= 25
    centres = {label: [d[:2] for d in DISCS if d[3] == label - 1] for label in (1, 2)}
    right = 0
    for polygon, label in zip(whole.shapes.polygons, whole.shapes.labels.tolist(), strict=True):
        x, y = polygon.centroid.coords[0]
        right += any(abs(x - cx) <= 4 and abs(y - cy) <= 4 for cx, cy in centres[label])
    assert right >= 0.9 * len(whole.shapes)

    part = nuclei.infer_slide({"image": "field", "mpp": 0.25, "location": [60, 50], "size": [150, 140]})
    inside = [
        polygon.bounds for polygon in whole.shapes.polygons
        if 60 < polygon.centroid.x < 210 and 50 < polygon.centroid.y < 190
    ]  # fmt: skip
    assert sorted(polygon.bounds for polygon in part.shapes.polygons) == sorted(inside)
    found = read_asap_xml(write_answer(part, "asap", tmp_path)["file"])
    assert sorted(annotation.geometry.bounds for annotation in found) == sorted(inside)
    assert {annotation.color for annotation in found} <= {(200, 0, 0), (0, 90, 200)}


def test_a_picture_without_a_resolution_is_warned_of(nuclei: SiteInferTask) -> None:
    result = nuclei.infer_slide({"image": "field"})
    assert "field.png records no micrometres per pixel and was taken to have the 0.25" in result.warnings[0]
    assert len(result.shapes) >= 25


def test_a_label_map_for_slicer(tissue: SiteInferTask, studies: Path) -> None:
    itk = pytest.importorskip("itk")
    file, params = tissue({"image": str(studies / "painted.x.tiff"), "result_extension": ".nrrd"})
    assert file is not None
    labels = itk.array_from_image(itk.imread(file))
    Path(file).unlink()
    values = {".": 0, "S": 1, "M": 2, "B": 3}
    expected = np.array([[values[character] for character in row] for row in PATTERN], dtype=np.uint8)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected.repeat(TILE, 0).repeat(TILE, 1))
    assert params["label_names"] == {"Stroma": 1, "Muscle": 2, "Blood": 3, "Undefined": 4}
    assert params["latencies"]["write"] > 0


def test_contours_for_cvat_of_an_upload(site: AnnotationSite, studies: Path, tmp_path: Path) -> None:
    upload = tmp_path / "tmpa1b2.jpg"
    Image.open(studies / "field.png").save(upload, quality=98)
    task = SiteInferTask(site.task("nuclei"), allowed=lambda path: path.parent == tmp_path)
    file, params = task({"model": "nuclei", "image": str(upload), "output": "json"})
    assert file is None
    (only,) = params["annotations"]
    contours = {element["label"]: element["contours"] for element in only["annotation"]["elements"]}
    assert set(contours) == {"tumour", "lymphocyte"}
    assert all(np.array(contour).shape == (4, 2) for of_class in contours.values() for contour in of_class)
    assert "records no micrometres per pixel" in params["warnings"][0]
    with pytest.raises(UnknownItemError, match=r"there is no image 'field\.png' that may be read"):
        task({"image": str(studies / "field.png")})


def test_a_slide_is_too_large_for_a_label_map(tissue: SiteInferTask, studies: Path) -> None:
    Image.fromarray(np.full((16, 9000, 3), 250, np.uint8)).save(studies / "long.png")
    try:
        with pytest.raises(ConfigError, match=r"long\.png has 9000 x 16 px, more than the 8192 .* /infer/wsi/tissue"):
            tissue({"image": "long", "mpp": 0.25})
        assert len(tissue.infer_slide({"image": "long", "mpp": 0.25}).shapes) == 0
    finally:
        (studies / "long.png").unlink()


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"image": "nothing"}, UnknownItemError, "there is no slide 'nothing' in the studies folder"),
        ({"image": "/etc/passwd"}, UnknownItemError, "there is no image 'passwd' that may be read"),
        ({"image": "../painted"}, UnknownItemError, r"there is no slide '\.\./painted'"),
        ({}, ConfigError, "image must name a slide or a picture, but is 'None'"),
        ({"image": np.zeros((2, 2))}, ConfigError, "image must name a slide or a picture"),
        ({"image": "painted.x", "location": [1280, 0], "size": [5, 5]}, ConfigError, "lies outside of the slide"),
        ({"image": "painted.x", "location": [1, 1], "size": [60, 60]}, ConfigError, "ask for 128 x 128 px or more"),
        ({"image": "painted.x", "size": [5, -5]}, ConfigError, r"size must be two numbers .* but is \[5, -5\]"),
        ({"image": "painted.x", "output": "pdf"}, ConfigError, "output must be asap, dsa or json, but is 'pdf'"),
        ({"image": "painted.x", "undefined_below": 60}, ConfigError, "undefined_below must be a number from 0 to 1"),
        ({"image": "painted.x", "mpp": -1}, ConfigError, "mpp must be micrometres per level-0 pixel"),
    ],
)
def test_a_wrong_request_is_told(
    tissue: SiteInferTask, request_: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tissue.infer_slide(request_)


def test_a_wrong_extension_is_told_before_the_model_runs(tissue: SiteInferTask) -> None:
    with pytest.raises(ConfigError, match=r"result_extension must be one of .* but is '/\.\./x\.nrrd'"):
        tissue({"image": "painted.x", "result_extension": "/../x.nrrd"})


def test_a_damaged_slide_is_told(tissue: SiteInferTask, studies: Path) -> None:
    (studies / "cut.svs").write_bytes((studies / "renamed.svs").read_bytes()[:2000])
    try:
        with pytest.raises(SlideError, match=r"cut\.svs"):
            tissue.infer_slide({"image": "cut"})
    finally:
        (studies / "cut.svs").unlink()


def test_a_new_model_is_taken_without_a_restart(studies: Path, models: Path, tmp_path: Path) -> None:
    current = tmp_path / "model.pt"
    shutil.copy(models / "tissue.pt", current)
    conf = {"device": "cpu", "tissue_checkpoint": str(current), "output_dir": str(tmp_path / "own")}
    task = SiteInferTask(AnnotationSite(studies, read_settings(conf)).task("tissue"))
    part = {"image": "painted.x", "location": [256, 128], "size": [128, 128]}
    assert task.infer_slide(part).shapes.counts()["Stroma"] == 1
    network = load_checkpoint(current)
    with torch.no_grad():
        network.head[-1].weight.zero_()
        network.head[-1].bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
    save_checkpoint(current, network)
    assert task.infer_slide(part).shapes.counts()["Blood"] == 1
    current.write_bytes(b"no checkpoint")
    os.utime(current, ns=(1, 1))
    with pytest.raises(CheckpointError):
        task.infer_slide(part)


def test_clients_that_ask_at_once_all_get_their_answer(tissue: SiteInferTask) -> None:
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        result = tissue.infer_slide({"image": "painted.x", "location": [128 * number, 0], "size": [128, 768]})
        answers[number] = int(sum(shapely.area(result.shapes.polygons)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    columns = ["".join(row[column] for row in PATTERN) for column in range(10)]
    assert answers == {n: sum(c != "." for c in column) * TILE**2 for n, column in enumerate(columns)}


def test_who_waits_too_long_is_told_what_for(tissue: SiteInferTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tral_monai.label_app.infer_task._PATIENCE_S", 0.1)
    part = {"image": "painted.x", "location": [0, 0], "size": [128, 768]}
    with tissue._alone("other.svs") as report:
        report(120, 900)
        with pytest.raises(
            BusyError, match=r"another inference on other\.svs \(120 of 900 tiles, for 0 s\) is going on;"
        ):
            tissue.infer_slide(part)
    assert len(tissue.infer_slide(part).shapes) == 0


def test_a_region_that_is_too_small_is_told_before_the_model_runs(tissue: SiteInferTask) -> None:
    with tissue._one_at_a_time, pytest.raises(ConfigError, match="ask for 128 x 128 px or more"):
        tissue.infer_slide({"image": "painted.x", "location": [1, 1], "size": [60, 60]})


def test_a_tile_of_dsa_at_a_time_or_all_at_once(tissue: SiteInferTask) -> None:
    """Tiles of 100 px side by side are looked at as one; those that touch no other come one by one, and are joined."""
    whole = tissue.infer_slide({"image": "painted.x"})
    tiles = [{"location": [x, y], "size": [100, 100]} for x in range(0, 1280, 100) for y in range(0, 768, 100)]
    tiled = tissue.infer_slide({"image": "painted.x", "wsi_tiles": tiles})
    assert all(area(tiled, name).equals(area(whole, name)) for name in NAMES)
    apart = [{"location": [x, 0], "size": [100, 768]} for x in range(128, 1280, 256)]
    some = tissue.infer_slide({"image": "painted.x", "wsi_tiles": apart})
    assert some.region == (128, 0, 1124, 768)
    odd = shapely.union_all([shapely.box(x, 0, x + TILE, 768) for x in range(128, 1280, 256)])
    assert all(((area(whole, name) & odd) ^ area(some, name)).area == 0 for name in NAMES)
