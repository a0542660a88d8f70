# SPDX-License-Identifier: Apache-2.0
"""Pyramidal tiled JPEG TIFF, as slide readers expect it of a generic scanner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from tral_monai.atomic_file import atomic_path

TIFF_TILE_PX = 256
LEVEL_STEP = 4
LEVELS = 3


def shrink(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of every ``factor`` x ``factor`` square, rounded; rows and columns that fill no square are dropped.

    Args:
        image: uint8 (h, w, 3).
        factor: Whole number.

    Returns:
        uint8 (h // factor, w // factor, 3).
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: height * factor, : width * factor]
    rows = np.zeros((height, width * factor, 3), np.uint32)
    for offset in range(factor):
        rows += whole[offset::factor]
    total = np.zeros((height, width, 3), np.uint32)
    for offset in range(factor):
        total += rows[:, offset::factor]
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def write_pyramid(path: Path, image: NDArray[np.uint8], *, mpp: float, jpeg_quality: int) -> None:
    """Write level 0 and the levels 4 and 16 times smaller; the file appears only once it is whole.

    Args:
        path: File to write, ``.tif``.
        image: Level 0, uint8 (h, w, 3), at least 16 x 16.
        mpp: Micrometres per pixel at level 0; recorded as pixels per centimetre.
        jpeg_quality: 1 to 100.
    """
    with atomic_path(path) as part, tifffile.TiffWriter(part) as tiff:
        level = image
        for index in range(LEVELS):
            pixels_per_cm = 1e4 / (mpp * LEVEL_STEP**index)
            tiff.write(
                level,
                photometric="rgb",  # stored as YCbCr; "ycbcr" would mean that the image is already converted
                subsampling=(2, 2),
                compression="jpeg",
                compressionargs={"level": jpeg_quality},
                tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if index else 0,
                software="tral_monai generated cohort",
                metadata=None,
                maxworkers=1,
            )
            level = shrink(level, LEVEL_STEP)
