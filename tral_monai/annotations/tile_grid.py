# SPDX-License-Identifier: Apache-2.0
"""The grid on which tiles are taken from a slide: the paper's, 128 px at 40x, anchored at the top left corner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError
from tral_monai.slides import TILE_PX, level0_per_tile


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a slide whose centre lies on it, which is what may be labelled and learnt from.

    A tissue map covers the slide to its border and so may have one row or column more: see
    :class:`tral_monai.inference.map_grid.MapGrid`. Where both have a tile, it is the same one.

    Tile (row, column) starts at ``step_level0 * (column, row)`` and is ``tile_level0`` wide; both may be fractional.

    Args:
        dimensions: (width, height) of the slide, level-0 px.
        mpp: micrometres per level-0 pixel.
        stride_px: distance of neighbouring tiles at 40x, in pixels; 128 gives tiles that touch.

    Raises:
        ConfigError: a slide without area, or an mpp or stride that is not positive.
    """

    dimensions: tuple[int, int]
    mpp: float
    stride_px: int = TILE_PX

    def __post_init__(self) -> None:
        if min(self.dimensions) < 1:
            raise ConfigError(f"a grid needs a slide with an area, but its dimensions are {self.dimensions}")
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            raise ConfigError(f"mpp must be a positive number of micrometres per pixel, but is {self.mpp}")
        if self.stride_px < 1:
            raise ConfigError(f"stride_px must be at least 1, but is {self.stride_px}")

    @property
    def tile_level0(self) -> float:
        """Side of a tile, level-0 px."""
        return level0_per_tile(self.mpp)

    @property
    def step_level0(self) -> float:
        """Distance of neighbouring tiles, level-0 px."""
        return level0_per_tile(self.mpp, tile_px=self.stride_px)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self._count(self.dimensions[1]), self._count(self.dimensions[0])

    def centres(self, rows: npt.ArrayLike, columns: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Centres of some tiles.

        Args:
            rows: (n,) rows.
            columns: (n,) columns.

        Returns:
            (n, 2) int64 (x, y), level-0 px, to the nearest pixel.
        """
        return tile_centres(rows, columns, step_level0=self.step_level0, tile_level0=self.tile_level0)

    def _count(self, extent: int) -> int:
        # floor(x + 0.5) < extent, which keeps the rounded centre on the slide too.
        return max(math.ceil((extent - 0.5 - self.tile_level0 / 2) / self.step_level0), 0)


def tile_centres(
    rows: npt.ArrayLike, columns: npt.ArrayLike, *, step_level0: float, tile_level0: float
) -> npt.NDArray[np.int64]:
    """Centres of tiles that start at multiples of a step: the one rule for training and for tissue maps.

    Args:
        rows: (n,) rows.
        columns: (n,) columns.
        step_level0: distance of neighbouring tiles, level-0 px.
        tile_level0: side of a tile, level-0 px.

    Returns:
        (n, 2) int64 (x, y), level-0 px, to the nearest pixel.
    """
    cells = np.stack([np.asarray(columns), np.asarray(rows)], axis=-1)
    return np.floor(cells * step_level0 + tile_level0 / 2 + 0.5).astype(np.int64)
