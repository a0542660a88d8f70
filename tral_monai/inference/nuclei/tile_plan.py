# SPDX-License-Identifier: Apache-2.0
"""Where a detector looks: overlapping tiles inside of an image, and the core of each, for which it alone answers."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import numpy.typing as npt

from tral_monai.errors import ConfigError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """Tiles of one size, spread evenly so that none leaves the image and neighbours overlap by at least a given width.

    The cores divide the image: the border between two cores is the middle of what their tiles share. All numbers are in
    pixels of the image at the resolution of the detector.

    Args:
        size_px: (width, height) of the image.
        tile_px: side of a tile; an image that is smaller has one tile of its own size.
        overlap_px: least overlap of neighbours.

    Raises:
        ConfigError: an image without area, or an overlap that is negative or more than half a tile.
    """

    size_px: tuple[int, int]
    tile_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if min(self.size_px) < 1:
            raise ConfigError(f"tiles need an image with an area, but its size is {self.size_px}")
        if not 0 <= self.overlap_px <= self.tile_px // 2:
            raise ConfigError(
                f"overlap_px must lie between 0 and half of tile_px ({self.tile_px}), but is {self.overlap_px}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        return len(self.y_starts_px), len(self.x_starts_px)

    @property
    def tile_size_px(self) -> tuple[int, int]:
        """(width, height) of every tile."""
        return min(self.tile_px, self.size_px[0]), min(self.tile_px, self.size_px[1])

    @functools.cached_property
    def x_starts_px(self) -> IntArray:
        """(columns,) left edges of the tiles."""
        return self._starts(self.size_px[0])

    @functools.cached_property
    def y_starts_px(self) -> IntArray:
        """(rows,) upper edges of the tiles."""
        return self._starts(self.size_px[1])

    @functools.cached_property
    def x_edges_px(self) -> FloatArray:
        """(columns + 1,) borders of the cores, from 0 to the image's width."""
        return self._edges(self.x_starts_px, self.size_px[0])

    @functools.cached_property
    def y_edges_px(self) -> FloatArray:
        """(rows + 1,) borders of the cores, from 0 to the image's height."""
        return self._edges(self.y_starts_px, self.size_px[1])

    def starts_px(self, tiles: IntArray) -> IntArray:
        """Upper left corners (x, y) of tiles, numbered row by row: (n,) -> (n, 2)."""
        rows, columns = np.divmod(tiles, self.shape[1])
        return np.column_stack((self.x_starts_px[columns], self.y_starts_px[rows]))

    def cores_px(self, tiles: IntArray) -> FloatArray:
        """Cores of tiles: (n,) -> (n, 4) xmin, ymin, xmax, ymax, the maximum exclusive."""
        rows, columns = np.divmod(tiles, self.shape[1])
        x, y = self.x_edges_px, self.y_edges_px
        return np.column_stack((x[columns], y[rows], x[columns + 1], y[rows + 1]))

    def core_areas_px(self) -> FloatArray:
        """(rows, columns) area of every core."""
        return np.outer(np.diff(self.y_edges_px), np.diff(self.x_edges_px))

    def mask_area_px(self, mask: npt.NDArray[np.bool_], pixel_px: float) -> FloatArray:
        """Area of a coarse mask inside of every core.

        Args:
            mask: (h, w) bool; pixel (0, 0) starts at the image's upper left corner.
            pixel_px: side of one of its pixels.

        Returns:
            (rows, columns) area; a pixel of the mask belongs to the core that its middle lies in.
        """
        rows = self._core_of(self.y_edges_px, mask.shape[0], pixel_px)
        columns = self._core_of(self.x_edges_px, mask.shape[1], pixel_px)
        y, x = np.nonzero(mask)
        count = np.bincount(rows[y] * self.shape[1] + columns[x], minlength=self.shape[0] * self.shape[1])
        return np.minimum(count.reshape(self.shape) * pixel_px**2, self.core_areas_px())

    def _starts(self, extent: int) -> IntArray:
        if extent <= self.tile_px:
            return np.zeros(1, dtype=np.int64)
        count = math.ceil((extent - self.overlap_px) / (self.tile_px - self.overlap_px))
        return np.floor(np.linspace(0, extent - self.tile_px, count) + 0.5).astype(np.int64)

    def _edges(self, starts: IntArray, extent: int) -> FloatArray:
        middles = (starts[1:] + starts[:-1] + self.tile_px) / 2
        return np.concatenate(([0.0], middles, [float(extent)]))

    @staticmethod
    def _core_of(edges: FloatArray, pixels: int, pixel_px: float) -> IntArray:
        middles = (np.arange(pixels) + 0.5) * pixel_px
        return np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(edges) - 2)
