# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's own ``monaibundle`` app, as it comes with the wheel, serves both bundles as they are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

pytest.importorskip("monailabel")

from tests.inference.colour_slides import CLASSES, TILE, write_slide
from tests.inference.nuclei.conftest import train_detector
from tests.inference.nuclei.disc_fields import draw_discs, scattered_discs
from tests.label_app.qupath_requests import QuPath
from tests.label_app.server_process import free_port
from tests.label_app.small_models import PATTERN, tissue_checkpoint, write_painted_slide
from tral_monai.networks.checkpoint import save_checkpoint

BUNDLES = Path(__file__).parents[2] / "bundles"
TISSUE, NUCLEI = "pathology_multiscale_tissue_classification", "pathology_open_set_nucleus_detection"
STOCK_APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
START_S = 90.0
NAMES = ("Tum", "Lym")  # two of the nucleus bundle's own classes
DISCS = scattered_discs((700, 500), 60, seed=5)
Shapes = list[tuple[str, shapely.Polygon]]

pytestmark = pytest.mark.skipif(
    not STOCK_APP.is_dir(), reason="the wheel's sample apps are not installed here (uv leaves them out; pip does not)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app with both bundles, and the slides."""
    folder = tmp_path_factory.mktemp("stock")
    shutil.copytree(STOCK_APP, folder / "app")
    for name in (TISSUE, NUCLEI):
        shutil.copytree(BUNDLES / name, folder / "app" / "model" / name)
        (folder / "app" / "model" / name / "models").mkdir(exist_ok=True)
    (folder / "studies").mkdir()
    (folder / "tmp").mkdir()
    painted = write_painted_slide(folder / "studies" / "painted.tif")
    write_slide(folder / "studies" / "discs.tif", draw_discs((700, 500), DISCS))
    tissue_checkpoint(folder / "app" / "model" / TISSUE / "models" / "model.pt", painted)
    save_checkpoint(folder / "app" / "model" / NUCLEI / "models" / "model.pt", train_detector(0, NAMES))
    return folder


@pytest.fixture(scope="module")
def qupath(folder: Path) -> Iterator[QuPath]:
    port = free_port()
    conf = {"models": f"{TISSUE},{NUCLEI}", "zoo_source": "local", "sam2": "false"}
    pairs = [word for pair in conf.items() for word in ("--conf", *pair)]
    where = ["--app", str(folder / "app"), "--studies", str(folder / "studies")]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    own = {"OMP_NUM_THREADS": "1", "MONAI_LABEL_AUTO_UPDATE_SCORING": "false", "TMPDIR": str(folder / "tmp")}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "monailabel.main", "start_server", *where, *address, *pairs],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **own},
            start_new_session=True,
        )
    client = QuPath(f"http://127.0.0.1:{port}")
    try:
        end = time.monotonic() + START_S
        while True:
            try:
                client.info()
                break
            except OSError:
                tail = (folder / "server.log").read_text(errors="replace")[-3000:]
                assert process.poll() is None, tail
                assert time.monotonic() < end, tail
                time.sleep(0.2)
        yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def shapes_of(root: ElementTree.Element) -> Shapes:
    return [
        (
            annotation.attrib["Name"],
            shapely.Polygon([(float(c.attrib["X"]), float(c.attrib["Y"])) for c in annotation.iter("Coordinate")]),
        )
        for annotation in root.iter("Annotation")
    ]


def cells(shapes: Shapes) -> list[str]:
    """The painted slide's pattern as the polygons show it: the class at every tile's centre, once."""
    letter = {name.lower(): key for key, name in CLASSES.items()}
    shown = []
    for row, keys in enumerate(PATTERN):
        shown.append("")
        for column in range(len(keys)):
            centre = shapely.Point((column + 0.5) * TILE, (row + 0.5) * TILE)
            here = [letter[name] for name, polygon in shapes if polygon.contains(centre)]
            assert len(here) <= 1
            shown[-1] += here[0] if here else "."
    return shown


def wsi(region: Sequence[int], tile_size: int = 1024, **params: Any) -> str:
    body = {"level": 0, "location": list(region[:2]), "size": list(region[2:]), "tile_size": [tile_size, tile_size]}
    return json.dumps({**body, "params": params})


def test_both_models_are_offered_with_their_classes(qupath: QuPath) -> None:
    models = qupath.info()["models"]
    assert set(models) == {TISSUE, NUCLEI}
    assert models[TISSUE]["labels"] == {"blood": 1, "damaged": 2, "muscle": 3, "stroma": 4, "urothelium": 5}
    assert models[NUCLEI]["labels"] == {"tum": 1, "lym": 2, "str": 3, "pla": 4, "mit": 5}
    for model in models.values():
        assert model["dimension"] == 2
        assert model["config"]["multi_gpu"] is False


def test_tissue_of_a_whole_slide(qupath: QuPath) -> None:
    shapes = shapes_of(qupath.infer(TISSUE, "painted", (0, 0, 0, 0)))
    assert cells(shapes) == list(PATTERN)
    # Two tiles of 1024 px, cut between columns 7 and 8, where there is glass; the stroma's hole is cut through.
    tissue = {name: sum(polygon.area for other, polygon in shapes if other == name) for name, _ in shapes}
    assert tissue == {"stroma": 12 * TILE**2, "blood": 4 * TILE**2, "muscle": 8 * TILE**2}
    corners = np.concatenate([np.array(polygon.exterior.coords) for _, polygon in shapes])
    assert (corners % 1 == 0).all()


def test_tissue_of_a_region_is_where_it_is_on_the_slide(qupath: QuPath) -> None:
    # Centres of columns 4 to 7 (576 to 960) and of rows 2 to 5 (320 to 704).
    shapes = shapes_of(qupath.infer(TISSUE, "painted", (500, 300, 500, 460)))
    expected = [
        "".join(key if 4 <= column <= 7 and 2 <= row <= 5 else "." for column, key in enumerate(keys))
        for row, keys in enumerate(PATTERN)
    ]
    assert cells(shapes) == expected


def test_nuclei_of_a_region_are_where_they_are_on_the_slide(qupath: QuPath) -> None:
    x0, y0, width, height = region = (150, 100, 400, 300)
    shapes = shapes_of(qupath.infer(NUCLEI, "discs", region))
    for _, polygon in shapes:
        assert x0 <= polygon.centroid.x <= x0 + width
        assert y0 <= polygon.centroid.y <= y0 + height
    edge = 3  # a box that is found need not be the disc's to the pixel
    inside = [d for d in DISCS if x0 + edge < d[0] < x0 + width - edge and y0 + edge < d[1] < y0 + height - edge]
    assert len(inside) > 10
    hits: Counter[bool] = Counter()
    for x, y, radius, label in inside:
        disc = shapely.box(x - radius, y - radius, x + radius + 1, y + radius + 1)
        name = NAMES[label].lower()
        overlaps = [p.intersection(disc).area / p.union(disc).area for other, p in shapes if other == name]
        hits[max(overlaps, default=0.0) > 0.5] += 1
    assert hits[True] >= 0.8 * len(inside)


@pytest.mark.parametrize("model", [TISSUE, NUCLEI])
def test_small_tiles_and_no_word_about_workers_give_the_same(qupath: QuPath, model: str) -> None:
    image, region = ("painted", (0, 0, 1280, 768)) if model == TISSUE else ("discs", (0, 0, 700, 500))
    whole = shapes_of(qupath.infer(model, image, region))
    path = f"/infer/wsi/{model}?output=asap&image={image}"
    tiled = shapes_of(ElementTree.fromstring(qupath.request("POST", path, wsi(region, 256))))

    def area(shapes: Shapes) -> dict[str, float]:
        return {name: shapely.union_all([p for other, p in shapes if other == name]).area for name, _ in shapes}

    assert area(tiled) == pytest.approx(area(whole), rel=0.01)


@pytest.mark.parametrize(("model", "image"), [(TISSUE, "painted"), (NUCLEI, "discs")])
def test_the_other_answers(qupath: QuPath, model: str, image: str) -> None:
    path = f"/infer/wsi/{model}?image={image}&output="
    body = wsi((0, 0, 0, 0), 4096, max_workers=1)
    drawn = json.loads(qupath.request("POST", path + "dsa", body))
    told = json.loads(qupath.request("POST", path + "json", body))
    (tile,) = told["annotations"]
    elements = tile["annotation"]["elements"]
    by_name = {element["label"]: len(element["contours"]) for element in elements}
    assert by_name
    assert Counter(element["group"] for element in drawn["elements"]) == by_name
    assert set(tile["annotation"]["labels"]) == set(by_name)
    assert tile["latencies"]["total"] > 0
    assert all(isinstance(told["latencies"][stage], float) for stage in ("pre", "infer", "post"))


def test_tiles_leave_no_files_behind(qupath: QuPath, folder: Path) -> None:
    before = set((folder / "tmp").iterdir())
    path = f"/infer/wsi/{NUCLEI}?output=asap&image=discs"
    assert qupath.request("POST", path, wsi((0, 0, 700, 500), 256)).startswith("<?xml")
    end = time.monotonic() + 5  # the answer's own file goes once it is sent
    while (left := set((folder / "tmp").iterdir()) - before) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == set()
