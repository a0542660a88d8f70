# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tral_monai.inference import class_map_png
from tral_monai.report import overlays
from tral_monai.report.overlays import read_overlays


def write_maps(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 99, dtype=np.uint8)).save(folder / f"{name}_overlay.png")
    text = PngInfo()
    names = [("Background", (0, 0, 0)), ("Blood", (128, 0, 0)), ("Stroma", (240, 50, 230)), ("Undefined", (1, 2, 3))]
    legend = [{"value": i, "name": label, "color": color} for i, (label, color) in enumerate(names)]
    text.add_text("classes", json.dumps(legend))
    values = np.array([[0, 0, 0, 0], [2, 2, 2, 1]], dtype=np.uint8)
    image = Image.fromarray(values)
    image.putpalette([0] * 768)
    image.save(folder / f"{name}_classes.png", pnginfo=text)


def test_the_legend_is_under_the_key_that_inference_writes() -> None:
    assert overlays.LEGEND_KEY == class_map_png.LEGEND_KEY


def test_legend_gives_shares_of_tissue(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps", "a")
    (overlay,), more = read_overlays(tmp_path)
    assert (overlay.slide, overlay.width, overlay.height, overlay.problem, more) == ("a", 60, 40, "", 0)
    assert [(e.name, e.color, e.share) for e in overlay.legend] == [
        ("Stroma", "#f032e6", 0.75),
        ("Blood", "#800000", 0.25),
    ]


def test_four_overlays_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    for name in "fedcba":
        write_maps(tmp_path / "maps", name)
    shown, more = read_overlays(tmp_path)
    assert [overlay.slide for overlay in shown] == ["a", "b", "c", "d"]
    assert more == 2


def test_no_maps_no_overlays(tmp_path: Path) -> None:
    assert read_overlays(tmp_path) == ((), 0)


def test_a_broken_overlay_is_named(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps", "a")
    (tmp_path / "maps" / "a_overlay.png").write_bytes(b"no picture")
    (overlay,), _ = read_overlays(tmp_path)
    assert overlay.uri == ""
    assert "cannot be read (UnidentifiedImageError)" in overlay.problem


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_an_overlay_without_its_class_map_has_no_shares(tmp_path: Path, content: bytes | None) -> None:
    write_maps(tmp_path / "maps", "a")
    classes = tmp_path / "maps" / "a_classes.png"
    classes.unlink()
    if content is not None:
        classes.write_bytes(content)
    (overlay,), _ = read_overlays(tmp_path)
    assert overlay.uri
    assert overlay.legend == ()
