# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a cohort run at any moment, run again: the same files as without, and nothing finished is done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles.bundle_files import BLADDER, NUCLEI, SMALL, TISSUE
from tests.end_to_end.killed_inference import contents, finished, run
from tests.inference.colour_slides import PATTERN, slide_pixels, write_slide
from tests.inference.nuclei.conftest import SMALLEST
from tests.inference.nuclei.disc_fields import CLASSES, COLOURS, draw_discs, scattered_discs
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN

ON_PROGRESS = "tral_monai.inference.slide_evaluator:SlideEvaluator._on_progress"
READ_TILE = "tral_monai.slides.tiff_backend:TiffBackend.read_tile"
FILES = 5  # of a slide: class map or detections, polygons or table, overlay, record, and the run's table

# Where the process dies. A file is written to a part file, flushed (os.fsync), and moved to its place (Path.replace).
QUICK = {
    "the second slide's second file is half-written": ("os:fsync", "before", FILES + 2),
}
STAGES = {
    "before the first slide": (ON_PROGRESS, "before", 1),
    "in the tissue mask of the second slide": (READ_TILE, "before", 70),
    "in the middle of the first slide": (ON_PROGRESS, "after", 2),
    **{f"file {n} is half-written": ("os:fsync", "before", n) for n in range(1, 2 * FILES + 1)},
    **{f"file {n} is written, not in its place": ("os:fsync", "after", n) for n in (1, FILES - 1, FILES)},
    **{f"file {n} is in its place": ("pathlib:Path.replace", "after", n) for n in range(1, 2 * FILES + 1)},
    "a record is being made": ("json:dumps", "before", 3),
}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two slides and a network with random weights; every tile gets a class."""
    folder = tmp_path_factory.mktemp("tissue")
    for number in range(2):
        write_slide(folder / f"s{number}.tif", slide_pixels(PATTERN[number:]))
    checkpoint = save_checkpoint(folder / "model.pt", TriCNN(BLADDER, **SMALL, seed=0))
    return {"checkpoint": str(checkpoint), "slides": str(folder), "undefined_below": 0.0}


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two fields and a detector with random weights, whose uncertain boxes are all written."""
    folder = tmp_path_factory.mktemp("nuclei")
    for number in range(2):
        discs = scattered_discs((200, 150), 12, seed=number)
        Image.fromarray(draw_discs((200, 150), discs)).save(folder / f"s{number}.png")
    network = OpenSetRCNN(CLASSES, role="target", seed=0, class_colors=COLOURS, **SMALLEST)
    checkpoint = save_checkpoint(folder / "model.pt", network.eval())
    return {"checkpoint": str(checkpoint), "images": str(folder), "mpp": 0.25, "min_score": 0.0, "overlap_px": 32}


@pytest.fixture(scope="module")
def unkilled(tissue: dict[str, Any], nuclei: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a run without a kill leaves in its output folder, by bundle; made when first asked for."""
    known: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        if name not in known:
            folder = tmp_path_factory.mktemp("unkilled")
            bundle, settings = (TISSUE, tissue) if name == "tissue" else (NUCLEI, nuclei)
            assert run(bundle.folder, {**settings, "output_dir": str(folder)}) == 0
            known[name] = contents(folder)
            assert len(known[name]) == 2 * (FILES - 1) + 1
        return known[name]

    return of


def check_kill(name: str, settings: dict[str, Any], expected: dict[str, Any], kill: Any, folder: Path) -> None:
    bundle = (TISSUE if name == "tissue" else NUCLEI).folder
    settings = {**settings, "output_dir": str(folder)}
    assert run(bundle, settings, kill) == -signal.SIGKILL
    done = finished(folder)
    assert len(done) < 2 or kill[2] >= 2 * FILES - 1
    for stem in done:  # what looks finished is
        record = json.loads((folder / f"{stem}.json").read_text())
        for file in record["files"]:
            assert (folder / file).read_bytes() == expected[file]
    assert run(bundle, settings) == 0
    assert contents(folder) == expected  # no part file is left either
    again = finished(folder)
    assert {stem: again[stem] for stem in done} == done


@pytest.mark.parametrize("stage", QUICK)
def test_a_killed_run_goes_on(stage, tissue, unkilled, tmp_path):
    check_kill("tissue", tissue, unkilled("tissue"), QUICK[stage], tmp_path / "maps")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage(stage, tissue, unkilled, tmp_path):
    check_kill("tissue", tissue, unkilled("tissue"), STAGES[stage], tmp_path / "maps")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [stage for stage in STAGES if "mask" not in stage])  # small fields have no mask
def test_a_kill_at_any_stage_of_the_nuclei(stage, nuclei, unkilled, tmp_path):
    check_kill("nuclei", nuclei, unkilled("nuclei"), STAGES[stage], tmp_path / "nuclei")


def command(settings: dict[str, Any]) -> list[str]:
    """The command that a user types."""
    options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    config = TISSUE.config_folder / "inference.yaml"
    start = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(TISSUE.folder)]
    return [*start, "--config_file", str(config), *options]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_real_command_killed_at_random_moments(seed, tissue, unkilled, tmp_path):
    """Killed again and again at any moment after the first file appeared, until it gets through."""
    rng = np.random.default_rng(seed)
    folder = tmp_path / "maps"
    line = command({**tissue, "output_dir": folder})
    for _ in range(3):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = set(folder.iterdir()) if folder.is_dir() else set()
        while process.poll() is None and (not folder.is_dir() or set(folder.iterdir()) == before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.wait()
    done = finished(folder)
    subprocess.run(line, check=True, capture_output=True)
    assert contents(folder) == unkilled("tissue")
    assert {stem: time_ns for stem, time_ns in finished(folder).items() if stem in done} == done


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, {130, 1, -signal.SIGINT}), (signal.SIGTERM, {143, -15})])
def test_ctrl_c_and_sigterm_stop_cleanly(sent, code, tissue, unkilled, tmp_path):
    folder = tmp_path / "maps"
    line = command({**tissue, "output_dir": folder})
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not finished(folder):
        time.sleep(0.005)
    process.send_signal(sent)
    _, error = process.communicate(timeout=30)
    assert process.returncode in code, error
    assert run(TISSUE.folder, {**tissue, "output_dir": str(folder)}) == 0
    assert contents(folder) == unkilled("tissue")


def _run(bundle_settings: dict[str, Any], folder: Path, **changes: Any) -> dict[str, int]:
    assert run(TISSUE.folder, {**bundle_settings, "output_dir": str(folder), **changes}) == 0
    return finished(folder)


@pytest.mark.slow
def test_what_makes_a_slide_be_done_again(tissue, tmp_path):
    """Moved: kept. Other weights, settings, mpp, or other content under the same name, size and time: done again."""
    slides, maps = tmp_path / "slides", tmp_path / "maps"
    shutil.copytree(tissue["slides"], slides)
    settings = {**tissue, "slides": str(slides)}
    first = _run(settings, maps)
    assert _run(settings, maps) == first
    moved = tmp_path / "moved"
    slides.rename(moved)
    settings["slides"] = str(moved)
    assert _run(settings, maps) == first

    content, stat = (moved / "s0.tif").read_bytes(), (moved / "s0.tif").stat()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    (moved / "s0.tif").write_bytes(changed)
    os.utime(moved / "s0.tif", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = _run(settings, maps)
    assert second["s0"] > first["s0"]
    assert second["s1"] == first["s1"]

    other = save_checkpoint(tmp_path / "other.pt", TriCNN(BLADDER, **SMALL, seed=1))
    for change in ({"checkpoint": str(other)}, {"stride_px": 256}, {"mpp": 0.5, "override_mpp": True}):
        before = finished(maps)
        after = _run(settings, maps, **change)
        assert all(after[stem] > before[stem] for stem in before), change
