# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.colour_slides import break_tile, slide_pixels, write_slide
from tral_monai.errors import ConfigError
from tral_monai.inference.overlay import OverlayWriter, render_overlay
from tral_monai.inference.tissue_map import TissueMap
from tral_monai.slides.slide import open_slide

# The map's 350 x 300 px slide is shown at 2 px per pixel: a tile is 200 px wide. Text is 12 px high, so the picture
# starts 12 px from the left and 46 px (3.8 * 12) from the top.
LEFT, TOP, TILE = 12, 46, 200


def pixel(overlay: Image.Image, row: int, column: int) -> list[int]:
    """Colour in the middle of a tile (of a whole one: the last column is cut)."""
    return list(overlay.getpixel((LEFT + column * TILE + TILE // 2, TOP + row * TILE + TILE // 2)))  # type: ignore[arg-type]


@pytest.fixture
def overlay(small_map: TissueMap) -> Image.Image:
    pink = np.full((600, 700, 3), (200, 100, 150), dtype=np.uint8)
    return render_overlay(pink, small_map, title="slide.tif", opacity=0.5)


def test_background_stays_as_it_is(overlay: Image.Image) -> None:
    assert pixel(overlay, 0, 0) == [200, 100, 150]


def test_tissue_is_grey_mixed_with_its_class(overlay: Image.Image) -> None:
    # Grey of the pink: 0.299 * 200 + 0.587 * 100 + 0.114 * 150 = 135.6; half of it, half of stroma's (240, 50, 230).
    assert pixel(overlay, 1, 0) == [188, 93, 183]


def test_borders_between_classes_are_in_nearly_full_colour(overlay: Image.Image) -> None:
    at_border = overlay.getpixel((LEFT + TILE, TOP + TILE // 2))  # background on the left, stroma on the right
    assert at_border == (232, 56, 223)  # 0.85 * (240, 50, 230) + 0.15 * (187.8, 92.8, 182.8)


def test_tiles_not_analysed_are_hatched(overlay: Image.Image) -> None:
    tile = np.asarray(overlay)[TOP + TILE + 20 : TOP + 2 * TILE - 20, LEFT + 3 * TILE + 20 : LEFT + 3 * TILE + 80]
    dark = (tile == (33, 37, 41)).all(axis=2)
    assert 0.4 < dark.mean() < 0.6


def test_the_page_holds_title_legend_and_scale_bar(overlay: Image.Image, small_map: TissueMap) -> None:
    page = np.asarray(overlay)
    assert page.shape[1] > 700 + 150  # the legend has its own column
    assert (page[:TOP] < 60).all(axis=2).any()  # ink of the title
    swatches = page[TOP:, LEFT + 700 + 16 :].reshape(-1, 3)
    for colour in ((240, 50, 230), (60, 180, 75), (128, 128, 128), (255, 225, 25)):
        assert (swatches == colour).all(axis=1).any()
    # 2 px per um: the longest round bar within a quarter of 700 px is 50 um = 100 px, drawn in ink.
    inside = page[TOP : TOP + 600, LEFT : LEFT + 700]
    longest = max(int((row == (33, 37, 41)).all(axis=1)[:300].sum()) for row in inside)
    assert 100 <= longest <= 102


def test_the_slide_stands_below_the_legend_where_there_is_room(small_map: TissueMap) -> None:
    green = np.zeros((1200, 1400, 3), dtype=np.uint8)
    green[..., 1] = 200
    page = np.asarray(render_overlay(green, small_map, title="slide.tif"))
    assert (page[:, 1400 + 40 :] == (0, 200, 0)).all(axis=2).sum() > 10_000


def test_a_class_that_is_absent_stays_in_the_legend_and_an_empty_map_is_drawn(small_map: TissueMap) -> None:
    nothing = dataclasses.replace(
        small_map,
        class_index=np.zeros((3, 4), dtype=np.uint8),
        confidence=np.full((3, 4), np.nan, dtype=np.float16),
        failed_centres_level0=np.zeros((0, 2), dtype=np.int64),
    )
    page = np.asarray(render_overlay(np.full((30, 35, 3), 240, dtype=np.uint8), nothing, title="x"))
    assert (page == (60, 180, 75)).all(axis=2).any()
    assert not (page == (255, 225, 25)).all(axis=2).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_px": 10}, "max_px must be at least 64, but is 10"),
        ({"opacity": 1.5}, "opacity must lie between 0 and 1"),
        ({"colours": {"Fat": (1, 2)}}, "colour of 'Fat'"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str, small_map: TissueMap) -> None:
    with pytest.raises(ConfigError, match=message):
        OverlayWriter(**settings)  # type: ignore[arg-type]
    if "opacity" in settings:
        with pytest.raises(ConfigError, match=message):
            render_overlay(np.zeros((9, 9, 3), dtype=np.uint8), small_map, title="x", opacity=1.5)


def test_a_slide_without_an_overview_still_gets_its_overlay(
    small_map: TissueMap, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels(("SSSS",) * 4, cell_px=256))
    break_tile(path, level=2, tile=0)
    with open_slide(path, "tiff") as slide:
        OverlayWriter(max_px=64).write(tmp_path / "o.png", slide, small_map)
    assert "s.tif: the overlay is grey where there is no picture of the slide" in caplog.text
    with Image.open(tmp_path / "o.png") as overlay:
        assert (np.asarray(overlay) == (240, 240, 240)).all(axis=2).any()
