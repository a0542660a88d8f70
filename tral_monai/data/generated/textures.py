# SPDX-License-Identifier: Apache-2.0
"""Periodic fibre textures: the fine structure that is too small for the plan's cells.

A texture is drawn once, with fibres along its columns (u) and one texel per ``TEXEL_UM``; a slide looks it up at
coordinates (u, v) that follow its own fibres.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from tral_monai.data.generated.grid import FloatArray

TEXEL_UM = 0.25
TEXTURE_PX = 1024


def fibre_texture(
    generator: np.random.Generator,
    *,
    along_px: float,
    across_px: float,
    coarse: float,
    crimp_px: float,
    crimp_waves: int,
) -> FloatArray:
    """Fibres of uniform grey-level distribution.

    Args:
        generator: Source of randomness.
        along_px: Correlation length along the fibres, in texels.
        across_px: Correlation length across the fibres, in texels.
        coarse: Share of a four times coarser layer that gathers fibres into strands, 0 to 1.
        crimp_px: Amplitude of the fibres' waves, in texels.
        crimp_waves: Number of waves over the texture's width; a whole number keeps it periodic.

    Returns:
        float32 array (TEXTURE_PX, TEXTURE_PX) in [0, 1], periodic in both directions.
    """
    shape = (TEXTURE_PX, TEXTURE_PX)
    layers = []
    for factor in (1, 4):
        noise = generator.standard_normal(shape, dtype=np.float32)
        noise = gaussian_filter(noise, (across_px * factor, along_px * (1 + factor) / 2), mode="wrap", truncate=2.5)
        layers.append(noise / noise.std())
    texture = (1 - coarse) * layers[0] + coarse * layers[1]
    columns = np.arange(TEXTURE_PX)
    shift = crimp_px * np.sin(2 * np.pi * crimp_waves * columns / TEXTURE_PX)
    rows = (np.arange(TEXTURE_PX)[:, None] + np.rint(shift)[None, :].astype(np.int64)) % TEXTURE_PX
    texture = texture[rows, columns[None, :]]
    return np.asarray(ndtr(texture / texture.std()), dtype=np.float32)


@lru_cache(maxsize=2)
def texture_bank(seed: int) -> dict[str, FloatArray]:
    """All textures of a cohort.

    Args:
        seed: Seed of the cohort; hospitals and patients share the textures.

    Returns:
        ``loose`` (wavy collagen strands), ``dense`` (packed, crimped collagen), ``muscle`` (straight fine fibrils),
        ``smear`` (burnt, streaky) and ``grain`` (isotropic plasma and cytoplasm).
    """
    streams = iter(np.random.default_rng([seed, 101]).spawn(5))
    return {
        "loose": fibre_texture(next(streams), along_px=26, across_px=2.0, coarse=0.55, crimp_px=14, crimp_waves=8),
        "dense": fibre_texture(next(streams), along_px=20, across_px=1.5, coarse=0.45, crimp_px=6, crimp_waves=16),
        "muscle": fibre_texture(next(streams), along_px=42, across_px=1.4, coarse=0.45, crimp_px=0, crimp_waves=0),
        "smear": fibre_texture(next(streams), along_px=34, across_px=2.6, coarse=0.60, crimp_px=8, crimp_waves=5),
        "grain": fibre_texture(next(streams), along_px=2.0, across_px=2.0, coarse=0.35, crimp_px=0, crimp_waves=0),
    }


def look_up(texture: FloatArray, u_px: FloatArray, v_px: FloatArray) -> FloatArray:
    """Texture values at coordinates given in texels; the texture repeats.

    Args:
        texture: (TEXTURE_PX, TEXTURE_PX).
        u_px: Coordinate along the fibres, any shape.
        v_px: Coordinate across the fibres, same shape.

    Returns:
        float32 array of the same shape.
    """
    index = v_px.astype(np.int32)
    index &= TEXTURE_PX - 1
    index *= TEXTURE_PX
    index += u_px.astype(np.int32) & (TEXTURE_PX - 1)
    return np.take(texture.reshape(-1), index)
