# SPDX-License-Identifier: Apache-2.0
"""Maps are made on a machine without any network, and without anything that an earlier download left behind."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.bundles.bundle_files import BLADDER, NUCLEI, SMALL, TISSUE, Bundle
from tests.inference.colour_slides import slide_pixels, write_slide
from tests.inference.nuclei.conftest import SMALLEST
from tests.inference.nuclei.disc_fields import CLASSES, COLOURS, draw_discs, scattered_discs
from tral_monai.networks.checkpoint import save_checkpoint
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.tri_cnn import TriCNN

CONNECT = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=2)"


def without_network() -> list[str]:
    """How to start a program that has no network, not even its own machine's."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs the program unshare, to run without a network")
    for options in (["-n"], ["-rn"]):
        tried = subprocess.run([unshare, *options, "true"], capture_output=True, text=True)
        if tried.returncode == 0:
            return [unshare, *options]
    pytest.skip(f"needs to be allowed to take the network away from a program: {tried.stderr.strip()}")


def settings_of(bundle: Bundle, folder: Path) -> dict[str, Path | str]:
    """A slide or field, and a network with random weights."""
    if bundle == TISSUE:
        slide = write_slide(folder / "s.tif", slide_pixels(("....", ".SM.", ".BS.", "....")))
        checkpoint = save_checkpoint(folder / "model.pt", TriCNN(BLADDER, **SMALL, seed=0))
        saved = {"save_features": "true", "save_probabilities": "true"}
        return {"slides": slide, "checkpoint": checkpoint, "tissue_method": "paper", **saved}
    field = folder / "s.png"
    Image.fromarray(draw_discs((200, 150), scattered_discs((200, 150), 12, seed=0))).save(field)
    network = OpenSetRCNN(CLASSES, role="target", seed=0, class_colors=COLOURS, **SMALLEST).eval()
    checkpoint = save_checkpoint(folder / "model.pt", network)
    return {"images": field, "checkpoint": checkpoint, "mpp": "0.25", "overlap_px": "32"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "ends", "row"),
    [
        (
            TISSUE,
            (".geojson", ".json", "_classes.png", "_overlay.png", "_features.h5", "_probabilities.ome.zarr"),
            {"slide": "s.tif", "status": "mapped", "tissue_tiles": "4", "error": ""},
        ),
        (NUCLEI, (".geojson", ".json", ".csv", "_overlay.png"), {"image": "s.png", "status": "mapped", "error": ""}),
    ],
    ids=["tissue", "nuclei"],
)
def test_the_command_works_without_a_network(
    bundle: Bundle, ends: tuple[str, ...], row: dict[str, str], tmp_path: Path
) -> None:
    start = without_network()
    refused = subprocess.run([*start, sys.executable, "-c", CONNECT], capture_output=True, text=True)
    assert "Network is unreachable" in refused.stderr  # there is none indeed

    line = [*start, sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(bundle.folder)]
    line += ["--config_file", str(bundle.config_folder / "inference.yaml"), "--output_dir", str(tmp_path / "out")]
    line += [text for name, value in settings_of(bundle, tmp_path).items() for text in (f"--{name}", str(value))]
    home = tmp_path / "home"  # where downloads would lie
    home.mkdir()
    caches = {name: str(home / name) for name in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME")}
    environment = {**os.environ, "HOME": str(home), **caches}
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    table = tmp_path / "out" / ("areas.csv" if bundle == TISSUE else "counts.csv")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {table.name, *(f"s{end}" for end in ends)}
    with table.open(newline="", encoding="utf-8") as stream:
        (found,) = csv.DictReader(stream)
    assert {name: found[name] for name in row} == row
