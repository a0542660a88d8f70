# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.inference.colour_slides import slide_pixels, write_slide
from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.errors import ConfigError, SlideError
from tral_monai.inference.map_grid import MapGrid
from tral_monai.slides.slide import open_slide


def test_a_slide_at_40x_by_hand() -> None:
    grid = MapGrid(dimensions=(300, 256), step_level0=128.0)
    assert grid.shape == (2, 3)
    assert grid.x_edges_level0.tolist() == [0, 128, 256, 300]
    assert grid.y_edges_level0.tolist() == [0, 128, 256]
    rows, columns = np.array([0, 1, 1]), np.array([0, 1, 2])
    assert grid.centres_level0(rows, columns).tolist() == [[64, 64], [192, 192], [320, 192]]
    assert grid.cell_areas_px().tolist() == [[128 * 128, 128 * 128, 44 * 128]] * 2


@pytest.mark.parametrize(
    ("mpp", "step"),
    [
        (0.25, 128),
        (0.252, 128),  # level 0 serves as 40x: its own pixels
        (0.2431, 128 * 0.25 / 0.2431),  # resampled to 40x
        (0.5, 64),
    ],
)
def test_tiles_touch_as_they_are_read(tmp_path: Path, mpp: float, step: float) -> None:
    """At 0.252 um per pixel the grid stepped by 126.98 px: tiles overlapped, and dense context shared nothing."""
    path = write_slide(tmp_path / "s.tif", slide_pixels(("SS",)), mpp=mpp)
    with open_slide(path) as slide:
        assert MapGrid.of_slide(slide).step_level0 == pytest.approx(step)
        assert MapGrid.of_slide(slide, stride_px=32).step_level0 == pytest.approx(step / 4)


def test_pixels_that_are_too_coarse_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", slide_pixels(("SS",)))
    with open_slide(path, mpp=25) as slide, pytest.raises(SlideError, match=r"s\.tif: 25 um per pixel are too.*--mpp"):
        MapGrid.of_slide(slide)


def test_a_fractional_step_is_rounded_once_and_shared() -> None:
    grid = MapGrid(dimensions=(100, 10), step_level0=33.4)
    assert grid.x_edges_level0.tolist() == [0, 33, 67, 100]  # 33.4, 66.8, then the border
    assert grid.centres_level0(np.array([0, 0]), np.array([0, 1])).tolist() == [[17, 17], [50, 17]]  # 16.7, 50.1


def test_a_last_column_that_would_round_to_nothing_is_left_out() -> None:
    grid = MapGrid(dimensions=(67, 10), step_level0=33.4)  # three columns would start at 0, 33 and 67
    assert grid.x_edges_level0.tolist() == [0, 33, 67]


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(1.0, 300.0))
def test_cells_cover_the_slide_without_gap_or_overlap(width: int, height: int, step: float) -> None:
    grid = MapGrid(dimensions=(width, height), step_level0=step)
    assert grid.shape == (grid.y_edges_level0.size - 1, grid.x_edges_level0.size - 1)
    for edges, extent in ((grid.x_edges_level0, width), (grid.y_edges_level0, height)):
        assert edges[0] == 0
        assert edges[-1] == extent
        assert (np.diff(edges) > 0).all()


@given(st.integers(200, 3000), st.floats(0.1, 1.0))
def test_where_labels_are_taken_the_map_has_the_same_tile(extent: int, mpp: float) -> None:
    learnt = TileGrid((extent, extent), mpp)
    shown = MapGrid((extent, extent), step_level0=learnt.step_level0)
    assert learnt.shape <= shown.shape
    cells = np.arange(learnt.shape[0])
    assert shown.centres_level0(cells, cells).tolist() == learnt.centres(cells, cells).tolist()


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"dimensions are \(0, 5\)"):
        MapGrid(dimensions=(0, 5), step_level0=128.0)
    with pytest.raises(ConfigError, match=r"at least one pixel, but is 0\.5"):
        MapGrid(dimensions=(5, 5), step_level0=0.5)
