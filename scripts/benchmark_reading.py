# SPDX-License-Identifier: Apache-2.0
"""Measure how fast triplets are read from a slide, against three `read_region` calls of OpenSlide per triplet.

    python scripts/benchmark_reading.py slide.tif --mpp 0.25 --json reading.json
    python scripts/benchmark_reading.py generated.tif --generate 20480 --json reading.json

Everything runs in one process and one thread, in steps of 128 triplets. Rates are triplets per CPU second; the plans
take turns, each with a new reader and nothing decoded, and the median of the rounds counts. The file itself is in the
page cache.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import psutil
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tral_monai.slides.choose_backend import BackendName
from tral_monai.slides.cucim_backend import cucim_unavailable
from tral_monai.slides.magnification import (
    MAGNIFICATIONS,
    TILE_PX,
    Resolution,
    level0_per_tile,
    magnification_to_mpp,
    resolve,
)
from tral_monai.slides.slide import Slide, open_slide
from tral_monai.slides.tissue import tissue_mask
from tral_monai.slides.triplets import TripletReader

Centres = NDArray[np.int64]
RGB = NDArray[np.uint8]
Steps = Iterator[tuple[NDArray[np.int64], RGB]]  # rows of the centres, their triplets
Plan = Callable[[], Steps]
_STEP = 128  # triplets that a plan hands over at a time, as a network takes them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--mpp", type=float, help="micrometres per pixel, where the slide records none")
    parser.add_argument("--triplets", type=int, default=1024, help="triplets per round (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--backend", default="auto", choices=["auto", "tiff", "cucim", "openslide"])
    parser.add_argument("--generate", type=int, metavar="SIDE", help="first write a slide of SIDE x SIDE pixels there")
    arguments = parser.parse_args()
    if arguments.generate:
        write_generated_slide(arguments.slide, arguments.generate)
    figures = measure(
        arguments.slide,
        mpp=arguments.mpp,
        count=arguments.triplets,
        repeats=arguments.repeats,
        backend=arguments.backend,
    )
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures)


def measure(path: Path, *, mpp: float | None, count: int, repeats: int, backend: BackendName) -> dict[str, Any]:
    """Return the figures as they go into the JSON file."""
    others: list[BackendName] = ["openslide"] if cucim_unavailable() else ["openslide", "cucim"]
    slide = open_slide(path, backend, mpp)
    slides = [slide, *(open_slide(path, name, mpp) for name in others if name != slide.backend_name)]
    all_centres = tissue_centres(slide)
    centres = all_centres[:count]
    growth = peak_memory_growth(slide, all_centres)
    fits = all(
        resolve(slide.level_downsamples, magnification_to_mpp(m) / slide.mpp).ratio == 1.0 for m in MAGNIFICATIONS
    )
    plans: dict[str, Plan] = {"naive OpenSlide": lambda: read_naively(path, slide, centres)}
    for opened in slides:
        plans[f"blocks, {opened.backend_name}"] = partial(read_blocks, opened, centres)
    reference = np.concatenate([triplets for _, triplets in read_naively(path, slide, centres)])
    identical = {
        name: all(bool((triplets == reference[rows]).all()) for rows, triplets in plan()) if fits else None
        for name, plan in plans.items()
    }
    del reference
    rates: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(repeats):
        for name, plan in plans.items():
            start = time.process_time()
            for _rows, _triplets in plan():
                pass
            rates[name].append(len(centres) / (time.process_time() - start))
    naive = rates["naive OpenSlide"]
    return {
        "slide": path.name,
        "dimensions": slide.dimensions,
        "mpp": slide.mpp,
        "levels_fit": fits,
        "triplets": len(centres),
        "repeats": repeats,
        "plans": {
            name: {
                "triplets_per_cpu_second": round(statistics.median(found), 1),
                "rounds": [round(rate, 1) for rate in found],
                "times_naive": round(statistics.median(a / b for a, b in zip(found, naive, strict=True)), 2),
                "identical_to_naive": identical[name],
            }
            for name, found in rates.items()
        },
        "memory": {
            "triplets": len(all_centres),
            "peak_growth_mib": growth,
            "cache_limit_mib": 64,
            "step_mib": round(_STEP * 3 * TILE_PX**2 * 3 / 2**20, 1),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "tifffile", "imagecodecs", "openslide-python", "pillow")},
            "openslide": openslide.__library_version__,
        },
    }


def tissue_centres(slide: Slide) -> Centres:
    """Return the centres of the 40x tiles of a grid that lie on tissue, in the order of 4096 px blocks."""
    step = level0_per_tile(slide.mpp)
    x, y = (np.floor((np.arange(int(side / step)) + 0.5) * step).astype(np.int64) for side in slide.dimensions)
    centres = np.column_stack([axis.ravel() for axis in np.meshgrid(x, y)])
    centres = centres[tissue_mask(slide).coverage(centres, step) > 0.7]
    if not len(centres):
        sys.exit(f"{slide.name}: no tissue found")
    block = centres // 4096
    return centres[np.lexsort((centres[:, 0], centres[:, 1], block[:, 0], block[:, 1]))]


def read_blocks(slide: Slide, centres: Centres) -> Steps:
    """Read with the package's reader, starting with an empty cache."""
    return TripletReader(slide).iter_blocks(centres, _STEP)


def read_naively(path: Path, slide: Slide, centres: Centres) -> Steps:
    """Read every tile by itself through OpenSlide, transparency on white; resampled by Pillow where no level fits."""
    found = [resolve(slide.level_downsamples, magnification_to_mpp(m) / slide.mpp) for m in MAGNIFICATIONS]
    with openslide.OpenSlide(path) as opened:
        for start in range(0, len(centres), _STEP):
            rows = np.arange(start, min(start + _STEP, len(centres)))
            out = np.empty((len(rows), len(found), TILE_PX, TILE_PX, 3), np.uint8)
            for triplet, (x, y) in zip(out, centres[rows].tolist(), strict=True):
                for tile, resolution in zip(triplet, found, strict=True):
                    tile[:] = read_tile_naively(opened, x, y, resolution)
            yield rows, out


def read_tile_naively(opened: openslide.OpenSlide, x: int, y: int, resolution: Resolution) -> RGB:
    factor = resolution.downsample
    corner = [round((int(position / factor + 0.5) - TILE_PX // 2) * factor) for position in (x, y)]
    side = round(TILE_PX * resolution.ratio)
    region = opened.read_region((corner[0], corner[1]), resolution.level, (side, side))
    alpha = region.getchannel("A")
    if alpha.getextrema() == (255, 255):
        tile = region.convert("RGB")
    else:
        tile = Image.new("RGB", region.size, "white")
        tile.paste(region, mask=alpha)
    return np.asarray(tile if side == TILE_PX else tile.resize((TILE_PX, TILE_PX), Image.Resampling.BILINEAR))


def peak_memory_growth(slide: Slide, centres: Centres) -> float:
    """Return by how many MiB the process grows at most while all triplets of the slide are read in steps."""
    process = psutil.Process()
    before = process.memory_info().rss
    peak = max(process.memory_info().rss for _ in TripletReader(slide).iter_blocks(centres, _STEP))
    return round((peak - before) / 2**20, 1)


def show(figures: dict[str, Any]) -> None:
    width, height = figures["dimensions"]
    print(f"{figures['slide']}: {width} x {height} px, {figures['triplets']} triplets, {figures['repeats']} rounds")
    for name, plan in figures["plans"].items():
        same = {True: "same pixels", False: "OTHER PIXELS", None: "resampled"}[plan["identical_to_naive"]]
        print(f"  {name:20s} {plan['triplets_per_cpu_second']:8.0f} /CPU-s {plan['times_naive']:6.2f}x  {same}")
    memory = figures["memory"]
    print(
        f"  peak memory grew by {memory['peak_growth_mib']} MiB over {memory['triplets']} triplets in steps of {_STEP}"
    )


def write_generated_slide(path: Path, side: int) -> None:
    """Write a square slide at 0.25 um per pixel, levels 1, 4 and 16, JPEG tiles of 256 px, half of it tissue-like.

    One block of 2048 px of texture is repeated like a chessboard with glass, so that the slide's size costs no memory.
    """
    generator = np.random.default_rng(0)
    noise = sum(
        ndimage.zoom(generator.normal(size=(2048 // size, 2048 // size, 3)), (size, size, 1), order=1)
        * (24 if size < 64 else 16)
        for size in (2, 4, 16, 64)
    )
    block = np.clip(noise + np.array((190, 140, 180)), 0, 255).astype(np.uint8)

    def tiles(factor: int) -> Iterator[bytes]:
        small = block.reshape(2048 // factor, factor, 2048 // factor, factor, 3).mean(axis=(1, 3)).astype(np.uint8)
        glass = np.full_like(small, 244)
        board = np.block([[[small], [glass]], [[glass], [small]]])
        board = np.tile(board, (2, 2, 1)) if len(board) < 256 else board
        coded: dict[tuple[int, int], bytes] = {}
        for row in range(-(-side // (factor * 256))):
            for column in range(-(-side // (factor * 256))):
                at = (row * 256 % len(board), column * 256 % len(board))
                if at not in coded:
                    part = np.ascontiguousarray(board[at[0] : at[0] + 256, at[1] : at[1] + 256])
                    coded[at] = bytes(
                        imagecodecs.jpeg8_encode(part, level=80, outcolorspace="YCBCR", subsampling="420")
                    )
                yield coded[at]

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor in (1, 4, 16):
            tiff.write(
                tiles(factor),
                shape=(side // factor, side // factor, 3),
                dtype=np.uint8,
                tile=(256, 256),
                compression=7,
                photometric="ycbcr",
                subsampling=(2, 2),
                subfiletype=int(factor > 1),
                resolution=(40000, 40000),
                resolutionunit="CENTIMETER",
                metadata=None,
            )


if __name__ == "__main__":
    main()
