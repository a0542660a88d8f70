# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tral_monai.report.pictures import SlidePictures, SlideSource, overlay_uri, slide_sources, svg_uri
from tral_monai.report.run_data import RunData

RED, BLUE = (200, 0, 0), (0, 0, 200)


def decode(uri: str | None) -> NDArray[np.int64]:
    assert uri is not None
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/jpeg"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(np.int64)


def close(pixels: NDArray[np.int64], color: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels - np.array(color)) < 25).all())


def test_tiles_share_their_centre(picture: Path) -> None:
    with SlidePictures({7: SlideSource(picture, 0.25)}) as pictures:
        tile = decode(pictures.tile(7, "slide.png", (300, 200), 40.0))
        context = decode(pictures.tile(7, "slide.png", (300, 200), 10.0))
    assert tile.shape == context.shape == (128, 128, 3)
    assert close(tile[2:-2, 2:-2], RED)  # the square of 128 px fills the tile at 40x
    assert close(context[52:76, 52:76], RED)  # and the inner 32 px at 10x
    assert close(context[20:44, 20:], BLUE)


def test_a_tile_over_the_edge_is_padded_with_white(picture: Path) -> None:
    with SlidePictures({7: SlideSource(picture, 0.25)}) as pictures:
        tile = decode(pictures.tile(7, "slide.png", (0, 500), 40.0))
    assert close(tile[:, :56], (255, 255, 255))
    assert close(tile[:, 72:], BLUE)


def test_thumbnail_knows_its_scale(picture: Path) -> None:
    with SlidePictures({7: SlideSource(picture, 0.25)}) as pictures:
        thumbnail = pictures.thumbnail(7, "slide.png", max_px=600)
    assert thumbnail is not None
    assert (thumbnail.width, thumbnail.height, thumbnail.downsample_level0) == (600, 500, 2.0)
    assert close(decode(thumbnail.uri)[90:110, 140:160], RED)


def test_slides_that_cannot_be_read_are_named_once_without_their_folder(tmp_path: Path) -> None:
    broken = tmp_path / "secret_folder" / "broken.tif"
    broken.parent.mkdir()
    broken.write_bytes(b"II*\0 and nothing else")
    sources = {1: SlideSource(tmp_path / "secret_folder" / "gone.tif", 0.25), 2: SlideSource(broken, 0.25)}
    with SlidePictures(sources) as pictures:
        assert pictures.tile(1, "gone.tif", (0, 0), 40.0) is None
        assert pictures.tile(2, "broken.tif", (0, 0), 40.0) is None
        assert pictures.thumbnail(3, "unknown.tif", max_px=100) is None
        assert pictures.thumbnail(3, "unknown.tif", max_px=100) is None
    assert set(pictures.problems) == {"gone.tif", "broken.tif", "unknown.tif"}
    assert pictures.problems["gone.tif"] == "its file is no longer where it was"
    assert "index.parquet" in pictures.problems["unknown.tif"]
    assert "secret_folder" not in str(pictures.problems)


def test_sources_come_from_the_index(make_run: Callable[..., RunData], picture: Path) -> None:
    run = make_run(slide_path=picture)
    assert slide_sources(run.folder, [0, 3]) == {0: SlideSource(picture, 0.25), 3: SlideSource(picture, 0.25)}
    assert slide_sources(make_run("without").folder, [0, 3]) == {}


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_overlays_are_reduced_and_laid_on_white(tmp_path: Path, mode: str) -> None:
    rgba = np.zeros((100, 400, 4), dtype=np.uint8)  # transparent
    rgba[:, 200:] = (*RED, 255)
    path = tmp_path / "a_overlay.png"
    Image.fromarray(rgba).convert(mode).save(path, **({"transparency": 0} if mode == "P" else {}))
    uri, width, height = overlay_uri(path, max_px=200)
    assert (width, height) == (200, 50)
    assert close(decode(uri)[5:45, 110:190], RED)
    if mode == "RGBA":
        assert close(decode(uri)[5:45, 10:90], (255, 255, 255))


def test_svg_is_carried_whole() -> None:
    head, _, data = svg_uri("<svg>é</svg>").partition(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(data).decode() == "<svg>é</svg>"
