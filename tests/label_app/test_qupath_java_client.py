# SPDX-License-Identifier: Apache-2.0
"""QuPath's own MONAI Label extension, compiled from the installed wheel, against the real server.

Its client and its commands (next sample, annotations, submit, training) run as they are; JavaFX and QuPath are stubs
without a window (``java/stubs.txt``). Not covered: the window itself, menus, the login form, the interactor and
segmentation tools, the extension's registration (``Extension.java``), and pixels that QuPath would cut out of a slide.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import shapely

from tests.label_app.annotator import Annotator, tiny_cohort_truth

pytest.importorskip("monailabel")

HERE = Path(__file__).parent / "java"
SOURCES = "src/main/java/qupath/lib/extension/monailabel"
CLASSES = ("MonaiLabelClient", "RequestUtils", "Settings", "Utils")
COMMANDS = ("NextSample", "RunInference", "RunTraining", "SubmitLabel")
SIZE = [1792, 1792]


def plugin() -> Path:
    """The extension's sources: pip puts them under the environment's folder."""
    inside = Path("monailabel") / "plugins" / "qupath" / SOURCES
    if (Path(sys.prefix) / inside).is_dir():
        return Path(sys.prefix) / inside
    for file in importlib.metadata.files("monailabel") or ():
        if file.name == "MonaiLabelClient.java" and file.locate().is_file():
            return Path(str(file.locate())).resolve().parent
    pytest.skip("this environment lacks the wheel's QuPath extension (uv does not install that part; pip does)")


def libraries() -> list[str]:
    """The jars of gson and slf4j's interface."""
    given = os.environ.get("TRAL_JAVA_CLASSPATH")
    if given:
        return [given]
    found = []
    for name in ("gson", "slf4j-api"):
        places = [*Path("/usr/share/java").glob(f"{name}*.jar"), *(Path.home() / ".m2").rglob(f"{name}-[0-9]*.jar")]
        if not places:
            pytest.skip(f"no {name} jar in /usr/share/java or ~/.m2: give both jars in TRAL_JAVA_CLASSPATH")
        found.append(str(max(places, key=lambda path: (path.stem.removesuffix("-sources"), str(path)))))
    return found


@pytest.fixture(scope="module")
def class_path(tmp_path_factory):
    """Everything compiled, with the libraries."""
    if shutil.which("javac") is None or shutil.which("java") is None:
        pytest.skip("needs a JDK (javac, java)")
    sources, jars, folder = plugin(), libraries(), tmp_path_factory.mktemp("java")
    files = [sources / f"{name}.java" for name in CLASSES]
    files += [sources / "commands" / f"{name}.java" for name in COMMANDS]
    for section in (HERE / "stubs.txt").read_text(encoding="utf-8").split("\n=== ")[1:]:
        name, _, text = section.partition("\n")
        file = folder / "stubs" / name.strip()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        files.append(file)
    command = ["javac", "-nowarn", "-encoding", "UTF-8", "-d", str(folder / "out"), "-cp", os.pathsep.join(jars)]
    made = subprocess.run([*command, *map(str, files), str(HERE / "Main.java")], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return os.pathsep.join([str(folder / "out"), *jars])


@pytest.fixture(scope="module")
def do(class_path, label_server):
    """Runs steps in one Java process; their answers."""

    def run(*steps):
        command = ["java", "-Djava.awt.headless=true", "-cp", class_path, "Main", label_server.url, json.dumps(steps)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]

    return run


@pytest.fixture(scope="module")
def slide(label_server):
    return str(label_server.studies / "B-01.tif")


def draw(annotator, bbox):
    shapes = annotator.shapes("B-01", bbox)
    return [{"name": shape.class_name, "points": [list(point) for point in shape.points]} for shape in shapes]


def test_info_fills_the_dialogs(do):
    (info,) = do({"action": "info"})
    assert info["errors"] == []
    assert {"Blood", "Damaged", "Muscle", "Stroma", "Urothelium"} <= {*info["labels"]}
    assert "Stroma" in info["models"]["tissue"]
    assert "tissue_random" in info["strategies"]
    assert all(value is not None for config in info["trainers"].values() for value in config.values())


def test_next_sample_opens_a_slide_and_then_draws_its_region(do, slide, label_server):
    image, patch, exists, missing = do(
        {"action": "next", "name": "tissue_random"},
        {"action": "next", "name": "tissue_random", "slide": slide, "size": SIZE},
        {"action": "exists", "name": "B-01"},
        {"action": "exists", "name": "nothing"},
    )
    assert image["errors"] == patch["errors"] == []
    assert Path(image["opened"]).parent == label_server.studies
    x, y, width, height = patch["bbox"]
    assert width > 200
    assert 0 <= x <= x + width <= 1792
    assert 0 <= y <= y + height <= 1792
    assert exists["exists"]
    assert not missing["exists"]


def test_the_whole_loop_of_an_annotator(do, slide, label_server):
    annotator = Annotator(tiny_cohort_truth())
    counted = label_server.get("/info/")["train_stats"]["tissue"]["regions_answered"]
    first, second = do(*[{"action": "next", "name": "tissue_random", "slide": slide, "size": SIZE}] * 2)
    assert first["bbox"] != second["bbox"]
    whole, region = do(
        {
            "action": "submit",
            "slide": slide,
            "size": SIZE,
            "answer": "NO",
            "shapes": draw(annotator, first["bbox"]),
        },
        {
            "action": "submit",
            "slide": slide,
            "size": SIZE,
            "answer": "YES",
            "bbox": second["bbox"],
            "shapes": draw(annotator, second["bbox"]),
        },
    )
    assert whole["errors"] == region["errors"] == []
    stats = label_server.get("/info/")["train_stats"]["tissue"]
    # What another test submitted for this whole slide is replaced.
    assert stats["regions_answered"] >= min(counted, 1) + 1
    labels = label_server.studies / "labels" / "final"
    assert (labels / "B-01.xml").is_file()
    assert (labels / "B-01-patch-{}_{}_{}_{}.xml".format(*second["bbox"])).is_file()


def test_an_inference_is_drawn_within_the_rectangle(do, slide):
    bbox = [512, 512, 512, 512]
    (once,) = do({"action": "infer", "name": "tissue", "slide": slide, "size": SIZE, "bbox": bbox})
    assert once["errors"] == []
    assert once["shapes"]
    around = shapely.box(512, 512, 1024, 1024).buffer(1)
    assert all(around.covers(shapely.Polygon(shape["points"])) for shape in once["shapes"])


def test_training_is_posted_with_the_changed_value_alone(do, label_server):
    (posted,) = do({"action": "train", "name": "nuclei", "key": "max_epochs", "value": "3"})
    assert posted["errors"] == []
    task = label_server.get("/train/")
    assert task["request"] == {"model": "nuclei", "max_epochs": 3, "gpus": "all"}
    deadline = time.monotonic() + 30
    while label_server.get("/train/")["status"] == "SUBMITTED" and time.monotonic() < deadline:
        time.sleep(0.1)
    label_server.ask("DELETE", "/train/")
    assert label_server.get("/train/")["status"] in ("STOPPED", "ERROR", "DONE")


def test_what_cannot_be_done_is_an_error_in_a_dialog(do, slide):
    (unknown,) = do({"action": "next", "name": "wsi_random", "slide": slide, "size": SIZE})
    assert "404" in unknown["errors"][0]
    (empty,) = do({"action": "submit", "slide": slide, "size": SIZE, "answer": "NO"})
    assert "ZERO annotations" in empty["errors"][0]
