# SPDX-License-Identifier: Apache-2.0
"""The grid of a tissue map over a slide: where each pixel of a class map lies at full resolution, to the pixel."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.tile_grid import tile_centres
from tral_monai.errors import ConfigError, SlideError
from tral_monai.slides.magnification import TILE_PX, magnification_to_mpp, resolve
from tral_monai.slides.slide import Slide

COARSEST_MPP = 4.0
"""Of a slide: at 2.5x a 40x tile would be enlarged from 8 px."""


@dataclasses.dataclass(frozen=True)
class MapGrid:
    """A regular grid of cells, one per tile, that covers a slide from its top left corner.

    The step may be fractional; cell borders are rounded to whole pixels once, here, so that neighbouring cells share
    them exactly. The last column and row end at the slide's border, even where the tile's centre lies beyond it: every
    bit of tissue gets a class, while :class:`tral_monai.annotations.tile_grid.TileGrid`, from which the model learns,
    leaves such tiles out.

    Args:
        dimensions: (width, height) of the slide, level-0 px.
        step_level0: distance of neighbouring tile centres, level-0 px.

    Raises:
        ConfigError: a slide without area, or a step below one pixel.
    """

    dimensions: tuple[int, int]
    step_level0: float

    def __post_init__(self) -> None:
        if min(self.dimensions) < 1:
            raise ConfigError(f"a grid needs a slide with an area, but its dimensions are {self.dimensions}")
        if not (math.isfinite(self.step_level0) and self.step_level0 >= 1.0):
            raise ConfigError(f"step_level0 must be at least one pixel, but is {self.step_level0}")

    @classmethod
    def of_slide(cls, slide: Slide, *, stride_px: int = TILE_PX) -> MapGrid:
        """The grid whose step is so many pixels at 40x as the slide is read there.

        Where a level serves as 40x that is 1 % off, its own pixels count: tiles then touch exactly, and those at 10x
        and 2.5x start at the same distances all over the slide, which dense context needs to share their pixels.

        Args:
            slide: an open slide.
            stride_px: pixels at 40x.

        Raises:
            SlideError: its pixels are too coarse for 40x.
        """
        asked = magnification_to_mpp(40.0) / slide.mpp
        step = stride_px * resolve(slide.level_downsamples, asked).downsample
        if slide.mpp > COARSEST_MPP:
            raise SlideError(
                f"{slide.name}: {slide.mpp:g} um per pixel are too coarse to look at as 40x (0.25), at most "
                f"{COARSEST_MPP:g} make sense; check its micrometres per pixel (--mpp)"
            )
        return cls(slide.dimensions, step)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the class map."""
        return self._cells(self.dimensions[1]), self._cells(self.dimensions[0])

    @property
    def x_edges_level0(self) -> npt.NDArray[np.int64]:
        """(columns + 1,) borders of the columns, strictly increasing, from 0 to the slide's width."""
        return self._edges(self.dimensions[0])

    @property
    def y_edges_level0(self) -> npt.NDArray[np.int64]:
        """(rows + 1,) borders of the rows, strictly increasing, from 0 to the slide's height."""
        return self._edges(self.dimensions[1])

    def centres_level0(
        self, rows: npt.NDArray[np.integer[Any]], columns: npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.int64]:
        """Centres of the tiles in given cells; in a cell cut by the border the centre of the uncut tile.

        Args:
            rows: (n,) row of each cell.
            columns: (n,) column of each cell.

        Returns:
            (n, 2) int64 (x, y), level-0 px.
        """
        return tile_centres(rows, columns, step_level0=self.step_level0, tile_level0=self.step_level0)

    def cell_areas_px(self) -> npt.NDArray[np.int64]:
        """(rows, columns) area of each cell inside the slide, level-0 px squared."""
        return np.outer(np.diff(self.y_edges_level0), np.diff(self.x_edges_level0))

    def _cells(self, extent: int) -> int:
        # A last cell whose rounded start is the border itself would be empty.
        cells = math.ceil(extent / self.step_level0)
        return cells - 1 if cells > 1 and math.floor((cells - 1) * self.step_level0 + 0.5) >= extent else cells

    def _edges(self, extent: int) -> npt.NDArray[np.int64]:
        cells = self._cells(extent)
        edges = np.floor(np.arange(cells + 1) * self.step_level0 + 0.5).astype(np.int64)
        edges[-1] = extent
        return edges
