# SPDX-License-Identifier: Apache-2.0
"""Tiles to try a network on: drawn ones, which may travel with it, and ones from a slide, which may not."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tral_monai.data.generated.fields import MIN_FIELD_PX, MPP_RANGE, generate_fields
from tral_monai.errors import ConfigError, SlideError
from tral_monai.slides.magnification import level0_per_tile, magnification_to_mpp
from tral_monai.slides.slide import open_slide
from tral_monai.slides.tissue import tissue_mask
from tral_monai.slides.triplets import TripletReader, triplets_to_tensor_layout

Tiles = npt.NDArray[np.uint8]
_FIELDS = 4
_FIELD_SEED = 20
_MIN_COVERAGE = 0.5
_GLASS = 245


def drawn_tiles(count: int, *, magnifications: Sequence[float], tile_px: int, seed: int) -> Tiles:
    """Tiles cut from generated fields of nuclei, of two stains; the last one is empty glass.

    A generated field shows up to 1 um per pixel: at lower magnifications, where nuclei would be dots, it stands for
    the tissue there. The magnifications of one tile do not share a centre.

    Args:
        count: number of tiles.
        magnifications: of the RGB triples.
        tile_px: side of a tile.
        seed: of the places that tiles are cut from; same seed, same pixels.

    Returns:
        uint8 (count, 3 * magnifications, tile_px, tile_px).

    Raises:
        ConfigError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"the number of tiles must be at least 1, but is {count}")
    generator = np.random.default_rng(seed)
    side = max(2 * tile_px, MIN_FIELD_PX)
    out = np.empty((count, 3 * len(magnifications), tile_px, tile_px), dtype=np.uint8)
    fields: dict[float, list[Tiles]] = {}
    for place, magnification in enumerate(magnifications):
        mpp = float(np.clip(magnification_to_mpp(magnification), *MPP_RANGE))
        if mpp not in fields:
            fields[mpp] = _drawn_fields(mpp, side)
        for row in range(count):
            x, y = generator.integers(0, side - tile_px + 1, 2)
            field = fields[mpp][int(generator.integers(_FIELDS))]
            out[row, 3 * place : 3 * place + 3] = field[y : y + tile_px, x : x + tile_px].transpose(2, 0, 1)
    out[-1:] = _GLASS  # where there is nothing to find
    return out


def tissue_tiles(
    path: str | os.PathLike[str],
    count: int,
    *,
    magnifications: Sequence[float],
    tile_px: int,
    mpp: float | None = None,
    seed: int,
) -> Tiles:
    """Tiles at random places of a slide's tissue.

    Args:
        path: the slide.
        count: number of tiles; fewer where the tissue has no more.
        magnifications: of the RGB triples.
        tile_px: side of a tile.
        mpp: of a slide that records none.
        seed: same seed, same places.

    Returns:
        uint8 (n, 3 * magnifications, tile_px, tile_px).

    Raises:
        SlideError: it cannot be read, or shows no tissue.
    """
    slide = open_slide(path, mpp=mpp)
    try:
        step = level0_per_tile(slide.mpp, max(magnifications), tile_px)
        width, height = slide.dimensions
        x, y = np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step))
        centres = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)
        centres = centres[tissue_mask(slide).coverage(centres, step) >= _MIN_COVERAGE]
        if not len(centres):
            raise SlideError(f"{slide.name}: found no tissue to check the model on; give another slide")
        chosen = np.random.default_rng(seed).permutation(len(centres))[:count]
        reader = TripletReader(slide, magnifications=magnifications, tile_px=tile_px)
        return triplets_to_tensor_layout(reader.read(centres[np.sort(chosen)]))
    finally:
        slide.close()


@functools.lru_cache(maxsize=8)
def _drawn_fields(mpp: float, side: int) -> list[Tiles]:
    import skimage.io

    with tempfile.TemporaryDirectory(prefix="tral_monai_") as folder:
        generate_fields(folder, n_fields=_FIELDS, field_px=side, mpp=mpp, seed=_FIELD_SEED, patients=2)
        return [np.asarray(skimage.io.imread(path)) for path in sorted(Path(folder, "images").glob("*.png"))]
