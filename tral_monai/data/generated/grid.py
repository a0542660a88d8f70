# SPDX-License-Identifier: Apache-2.0
"""Coarse fields that a generated slide is planned on, and their exact evaluation at any block of level-0 pixels.

A *cell* is a square of ``CELL_PX`` level-0 pixels. Fields hold one value per cell centre and are read between the
centres by cubic B-splines, which never overshoot and are smooth enough to serve as outlines. A pixel's value does
not depend on the block it is rendered in, so blocks join without a seam.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

CELL_PX = 16
_PAD_CELLS = 8
_FAR_CELLS = 8.0  # farther than any outline is felt: vessel walls end 18 um, about 5 cells, from the blood


def smooth_noise(generator: np.random.Generator, shape: tuple[int, int], sigma_cells: float) -> FloatArray:
    """Gaussian noise of zero mean and unit variance whose correlation length is ``sigma_cells``.

    Args:
        generator: Source of randomness.
        shape: Rows and columns of the field, in cells.
        sigma_cells: Standard deviation of the Gaussian that white noise is smoothed with, in cells.

    Returns:
        float32 array of ``shape``.
    """
    noise = gaussian_filter(generator.standard_normal(shape, dtype=np.float32), sigma_cells, mode="wrap", truncate=3)
    noise -= noise.mean()
    return (noise / max(float(noise.std()), 1e-12)).astype(np.float32)


def signed_distance(mask: BoolArray) -> FloatArray:
    """Distance to the outline of ``mask`` in cells: positive inside, negative outside, zero on the outline."""
    if mask.all():
        return np.full(mask.shape, 1e3, np.float32)
    if not mask.any():
        return np.full(mask.shape, -1e3, np.float32)
    inside = distance_transform_edt(mask)
    outside = distance_transform_edt(~mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def spline_weights(start_px: int, size_px: int, first_cell: int, cells: int) -> FloatArray:
    """Cubic B-spline weights of ``cells`` cells for ``size_px`` pixels.

    Args:
        start_px: First pixel; may be negative.
        size_px: Number of pixels.
        first_cell: Index of the first cell that the weights refer to.
        cells: Number of cells.

    Returns:
        float32 array (size_px, cells); every row sums to 1.
    """
    position = (np.arange(start_px, start_px + size_px) + 0.5) / CELL_PX - 0.5 - first_cell
    base = np.floor(position).astype(np.int64)
    t = position - base
    taps = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    weights = np.zeros((size_px, cells), np.float64)
    rows = np.arange(size_px)
    for offset, tap in zip((-1, 0, 1, 2), taps, strict=True):
        np.add.at(weights, (rows, np.clip(base + offset, 0, cells - 1)), tap)
    return weights.astype(np.float32)


@dataclass(frozen=True)
class Frame:
    """A block of level-0 pixels.

    Attributes:
        left_px: Left edge; may be negative.
        top_px: Top edge.
        width_px: Width.
        height_px: Height.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int


class FieldStack:
    """Named coarse fields of one slide, to be evaluated on blocks of pixels.

    A field whose name ends in ``_cells`` is a signed distance: a block that lies wholly more than 8 cells from the
    outline gets 8 or -8 there, which saves most of the work.
    """

    def __init__(self, fields: dict[str, FloatArray]) -> None:
        pad = ((_PAD_CELLS, _PAD_CELLS), (_PAD_CELLS, _PAD_CELLS))
        self._fields = {name: np.pad(field.astype(np.float32), pad, mode="edge") for name, field in fields.items()}

    def on_block(self, frame: Frame) -> Mapping[str, FloatArray]:
        """The fields on a block, each evaluated when it is first asked for.

        Args:
            frame: The block; may begin up to ``CELL_PX * 4`` px outside of the slide.

        Returns:
            One float32 array (height_px, width_px) for each name.
        """
        return _BlockFields(self._fields, frame)


class _BlockFields(dict[str, FloatArray]):
    def __init__(self, fields: dict[str, FloatArray], frame: Frame) -> None:
        super().__init__()
        self._fields, self._frame = fields, frame
        rows, columns = next(iter(fields.values())).shape
        self._wide, first_x = _axis(frame.left_px, frame.width_px, columns)
        self._high, first_y = _axis(frame.top_px, frame.height_px, rows)
        self._window = np.s_[first_y : first_y + self._high.shape[1], first_x : first_x + self._wide.shape[1]]

    def __missing__(self, name: str) -> FloatArray:
        cells = self._fields[name][self._window]
        low, top = float(cells.min()), float(cells.max())
        if name.endswith("_cells") and (low > _FAR_CELLS or top < -_FAR_CELLS):
            low = top = _FAR_CELLS if low > 0 else -_FAR_CELLS
        if low == top:
            self[name] = np.full((self._frame.height_px, self._frame.width_px), low, np.float32)
        else:
            self[name] = self._high @ (cells @ self._wide.T)
        return self[name]


def _axis(start_px: int, size_px: int, padded_cells: int) -> tuple[FloatArray, int]:
    first = max(start_px // CELL_PX - 2 + _PAD_CELLS, 0)
    last = min((start_px + size_px) // CELL_PX + 3 + _PAD_CELLS, padded_cells)
    return spline_weights(start_px, size_px, first - _PAD_CELLS, last - first), first
