# SPDX-License-Identifier: Apache-2.0
"""A bank of small patches (nuclei, red cells, muscle fibres cut across) that slides are stamped with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tral_monai.data.generated.grid import FloatArray

ORIENTATIONS = 16


@dataclass(frozen=True)
class Shape:
    """How one kind of patch is drawn.

    Attributes:
        length_um: Long axis.
        width_um: Short axis.
        power: Exponent of the superellipse: 2 is an ellipse, 3 has blunt ends.
        amount: Mean stain concentration inside.
        chromatin: Contrast of the texture inside, relative to ``amount``.
        rim: Extra stain at the edge, relative to ``amount``; negative gives a pale edge.
        edge_um: Width over which the edge fades.
        bend: Curvature of the long axis, relative to its length.
        spread: Relative variation of size and amount between variants.
        halo_um: Radius of the cytoplasm drawn around it in eosin, 0 for none.
        variants: Number of patches for each orientation.
    """

    length_um: float
    width_um: float
    power: float
    amount: float
    chromatin: float
    rim: float
    edge_um: float
    bend: float
    spread: float
    halo_um: float = 0.0
    variants: int = 6


SHAPES: dict[str, Shape] = {
    "urothelial": Shape(8.8, 6.6, 2.2, 0.58, 0.46, 0.34, 0.7, 0.00, 0.20, halo_um=6.9, variants=8),
    "lymphoid": Shape(7.6, 6.6, 2.2, 0.76, 0.42, 0.22, 0.7, 0.00, 0.14, variants=8),
    "spindle": Shape(15.0, 2.9, 1.7, 0.72, 0.20, 0.00, 0.7, 0.10, 0.24),
    "cigar": Shape(18.0, 3.9, 2.8, 0.56, 0.30, 0.12, 0.7, 0.03, 0.18),
    "crushed": Shape(17.0, 4.2, 1.6, 0.66, 0.10, 0.00, 2.2, 0.16, 0.35),
    "red_cell": Shape(6.9, 6.0, 2.2, 0.30, 0.10, 0.12, 0.7, 0.00, 0.10),
    "vacuole": Shape(19.0, 15.0, 2.2, 1.0, 0.00, 0.00, 0.9, 0.00, 0.40),
    "fibre_across": Shape(7.6, 6.4, 2.4, 0.54, 0.12, 0.08, 0.7, 0.00, 0.16),
}


def draw_patches(
    generator: np.random.Generator, shape: Shape, *, mpp: float, size_factor: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Draw every orientation and variant of a shape.

    Args:
        generator: Source of randomness.
        shape: What to draw.
        mpp: Micrometres per pixel of the slide.
        size_factor: Factor on length and width (patients differ).

    Returns:
        Two float32 arrays (ORIENTATIONS * variants, n, n): stain inside the shape, and eosin of the cytoplasm around
        it (all zero without a halo). Orientation ``k`` stands at rows ``k * variants`` and after; angle ``k * pi / 16``
        from the x axis towards the y axis.
    """
    count = ORIENTATIONS * shape.variants
    reach_um = max(shape.length_um / 2 * size_factor * (1 + shape.spread) * 1.12 + shape.edge_um, shape.halo_um * 1.25)
    half = int(np.ceil(reach_um / mpp)) + 1
    axis = (np.arange(-half, half + 1) * mpp).astype(np.float32)
    y, x = axis[None, :, None], axis[None, None, :]

    def per_patch(values: NDArray[np.float64]) -> FloatArray:
        return values.astype(np.float32).reshape(-1, 1, 1)

    angle = per_patch(np.repeat(np.arange(ORIENTATIONS), shape.variants) * np.pi / ORIENTATIONS)
    a = per_patch(shape.length_um / 2 * size_factor * (1 + shape.spread * generator.uniform(-1, 1, count)))
    b = per_patch(shape.width_um / 2 * size_factor * (1 + shape.spread * generator.uniform(-1, 1, count)))
    amount = per_patch(shape.amount * (1 + shape.spread * generator.uniform(-1, 1, count)))
    bend = per_patch(shape.bend * generator.uniform(-1, 1, count))
    wobble = per_patch(generator.uniform(0.0, 0.07, count))
    phase = per_patch(generator.uniform(0, 2 * np.pi, count))

    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    v = v + bend * u * u / a
    radius = ((np.abs(u) / a) ** shape.power + (np.abs(v) / b) ** shape.power) ** np.float32(1 / shape.power)
    radius = radius * (1 + wobble * np.cos(3 * np.arctan2(v, u) + phase))
    inside = np.clip((1 - radius) * b / shape.edge_um + 0.5, 0, 1)
    grain = gaussian_filter(generator.standard_normal(radius.shape, dtype=np.float32), (0, 0.45 / mpp, 0.45 / mpp))
    grain = np.clip(grain / grain.std(), -2, 2)
    rim = np.exp(-(((radius - 0.88) / 0.16) ** 2))
    stain = inside * amount * np.clip(1 + shape.chromatin * grain * 0.5 + shape.rim * rim, 0, None)
    halo = np.zeros_like(stain)
    if shape.halo_um:
        reach = np.sqrt(x * x + y * y) / (shape.halo_um * size_factor * (1 + 0.1 * np.cos(3 * phase)))
        halo = np.clip((1 - reach) * 6, 0, 1) * (0.26 + 0.16 * np.clip(reach, 0, 1) ** 4) * np.ones_like(stain)
    return stain.astype(np.float32), halo.astype(np.float32)


@lru_cache(maxsize=64)
def shared_patches(seed: int, name: str, mpp: float) -> tuple[FloatArray, FloatArray]:
    """Patches of ``SHAPES[name]`` that all patients of a scanner share; see :func:`draw_patches`.

    Args:
        seed: Seed of the cohort.
        name: Key of ``SHAPES``.
        mpp: Micrometres per pixel of the slides.
    """
    generator = np.random.default_rng([seed, 102, list(SHAPES).index(name)])
    return draw_patches(generator, SHAPES[name], mpp=mpp)


def orientation_index(angle: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Nearest drawn orientation of angles in radians (a turn by pi changes nothing)."""
    index: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = np.rint(angle * ORIENTATIONS / np.pi).astype(np.int64)
    return index % ORIENTATIONS


def stamp(canvas: FloatArray, patch: FloatArray, x_px: int, y_px: int) -> None:
    """Put a patch on a canvas, keeping the greater value of both; parts outside of the canvas are cut.

    Args:
        canvas: (h, w), changed in place.
        patch: (n, n) with odd n.
        x_px: Column of the patch's centre on the canvas; may lie outside.
        y_px: Row of the patch's centre.
    """
    half = patch.shape[0] // 2
    top, left = y_px - half, x_px - half
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + patch.shape[0], canvas.shape[0]), min(left + patch.shape[1], canvas.shape[1])
    if y0 < y1 and x0 < x1:
        part = canvas[y0:y1, x0:x1]
        np.maximum(part, patch[y0 - top : y1 - top, x0 - left : x1 - left], out=part)
