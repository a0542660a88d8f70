# SPDX-License-Identifier: Apache-2.0
"""Periodic fibre textures: the fine structure that is too small for the plan's cells.

A texture is drawn once, with fibres along its columns (u) and one texel per ``TEXEL_UM``; a slide looks it up at
coordinates (u, v) that follow its own fibres.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.special import ndtr

from tral_monai.data.generated.grid import FloatArray

TEXEL_UM = 0.25
TEXTURE_PX = 1024


def periodic_noise(generator: np.random.Generator, along_px: float, across_px: float) -> FloatArray:
    """Gaussian noise of unit variance, periodic, with a correlation length for each axis.

    Args:
        generator: Source of randomness.
        along_px: Correlation length along the rows, in texels.
        across_px: Correlation length along the columns, in texels.

    Returns:
        float32 array (TEXTURE_PX, TEXTURE_PX).
    """
    spectrum = rfft2(generator.standard_normal((TEXTURE_PX, TEXTURE_PX), dtype=np.float32))
    down = np.fft.fftfreq(TEXTURE_PX)[:, None] * across_px
    right = np.fft.rfftfreq(TEXTURE_PX)[None, :] * along_px
    spectrum *= np.exp(-2 * np.pi**2 * (down**2 + right**2)).astype(np.float32)
    noise = irfft2(spectrum, s=(TEXTURE_PX, TEXTURE_PX))
    return np.asarray(noise / noise.std(), dtype=np.float32)


def fibre_texture(
    generator: np.random.Generator,
    *,
    along_px: float,
    across_px: float,
    coarse: float,
    crimp_px: float,
    crimp_length_px: float,
) -> FloatArray:
    """Fibres of uniform grey-level distribution.

    Args:
        generator: Source of randomness.
        along_px: Correlation length along the fibres, in texels.
        across_px: Correlation length across the fibres, in texels.
        coarse: Share of a four times coarser layer that gathers fibres into strands, 0 to 1.
        crimp_px: Amplitude of the fibres' irregular waves, in texels.
        crimp_length_px: Correlation length of the waves, in texels.

    Returns:
        float32 array (TEXTURE_PX, TEXTURE_PX) in [0, 1], periodic in both directions.
    """
    texture = (1 - coarse) * periodic_noise(generator, along_px, across_px)
    texture += coarse * periodic_noise(generator, along_px * 2.5, across_px * 4)
    if crimp_px:
        rows, columns = np.indices(texture.shape)
        shift = crimp_px * periodic_noise(generator, crimp_length_px, crimp_length_px * 1.5)
        texture = texture[(rows + np.rint(shift).astype(np.int64)) % TEXTURE_PX, columns]
    return np.asarray(ndtr(texture / texture.std()), dtype=np.float32)


@lru_cache(maxsize=2)
def texture_bank(seed: int) -> dict[str, FloatArray]:
    """All textures of a cohort.

    Args:
        seed: Seed of the cohort; hospitals and patients share the textures.

    Returns:
        ``loose`` (wavy collagen strands), ``muscle`` (straight fine fibrils, and packed collagen),
        ``smear`` (burnt, streaky) and ``grain`` (isotropic plasma and cytoplasm).
    """
    settings = {  # along_px, across_px, coarse, crimp_px, crimp_length_px
        "loose": (30, 2.0, 0.50, 7.0, 26),
        "muscle": (42, 1.4, 0.45, 1.2, 60),
        "smear": (34, 2.6, 0.60, 6.0, 40),
        "grain": (2.0, 2.0, 0.35, 0.0, 1),
    }
    streams = np.random.default_rng([seed, 101]).spawn(len(settings))
    return {
        name: fibre_texture(
            stream, along_px=along, across_px=across, coarse=coarse, crimp_px=crimp, crimp_length_px=length
        )
        for stream, (name, (along, across, coarse, crimp, length)) in zip(streams, settings.items(), strict=True)
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
