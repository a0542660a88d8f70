# SPDX-License-Identifier: Apache-2.0
"""Tiny generated slides: a texture in the colours of H&E, written as a pyramid the way scanners write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

RGB = NDArray[np.uint8]


def texture(width: int, height: int, *, seed: int = 0) -> RGB:
    """Return smooth coloured noise around the mean colour of H&E."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (2, 2, 0))
    return np.clip(noise / noise.std() * (30, 35, 25) + (200, 150, 190), 0, 255).astype(np.uint8)


def reduce_by(pixels: RGB, factor: int) -> RGB:
    """Return the mean of every `factor` x `factor` square."""
    height, width = (side // factor for side in pixels.shape[:2])
    squares = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.round(squares.mean(axis=(1, 3))).astype(np.uint8)


def _tiles(pixels: RGB, tile: int, encode: Callable[[RGB], bytes], empty: frozenset[int]) -> Iterator[bytes]:
    index = 0
    for y in range(0, pixels.shape[0], tile):
        for x in range(0, pixels.shape[1], tile):
            part = np.zeros((tile, tile, 3), np.uint8)  # scanners pad with anything: the reader must not show it
            inside = pixels[y : y + tile, x : x + tile]
            part[: inside.shape[0], : inside.shape[1]] = inside
            yield b"" if index in empty else encode(part)
            index += 1


def encode_jpeg(part: RGB) -> bytes:
    return imagecodecs.jpeg8_encode(part, level=90, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")


def encode_jpeg_rgb(part: RGB) -> bytes:
    """Encode without a colour transform, as Aperio's "JPEG/RGB"."""
    return imagecodecs.jpeg8_encode(part, level=90, colorspace="RGB", outcolorspace="RGB")


def encode_jpeg2000(part: RGB) -> bytes:
    return imagecodecs.jpeg2k_encode(part, level=0, reversible=True, codecformat="j2k", mct=True)


@pytest.fixture(scope="session")
def make_texture() -> Callable[..., RGB]:
    return texture


@pytest.fixture(scope="session")
def make_levels() -> Callable[..., list[RGB]]:
    """Return a function (pixels, factors) -> levels of a pyramid."""
    return lambda pixels, factors=(1, 4, 16): [reduce_by(pixels, factor) for factor in factors]


@pytest.fixture(scope="session")
def write_tiff() -> Callable[..., Path]:
    """Return a function that writes levels as a generic tiled TIFF with JPEG tiles, mpp in its resolution tags."""

    def write(
        path: Path,
        levels: list[RGB],
        *,
        tile: int = 256,
        mpp: float | None = 0.25,
        empty: frozenset[int] = frozenset(),
        **options: Any,
    ) -> Path:
        resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
        coded = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
        with tifffile.TiffWriter(path) as tiff:
            for number, pixels in enumerate(levels):
                data = pixels if options else _tiles(pixels, tile, encode_jpeg, empty if number == 0 else frozenset())
                tiff.write(
                    data,
                    shape=pixels.shape,
                    dtype=np.uint8,
                    tile=(tile, tile),
                    subfiletype=int(number > 0),
                    metadata=None,
                    **(options or coded),
                    **resolution,
                )
        return path

    return write


@pytest.fixture(scope="session")
def write_svs() -> Callable[..., Path]:
    """Return a function that writes levels as an Aperio SVS, with thumbnail, label and macro in flat red."""

    def write(
        path: Path,
        levels: list[RGB],
        *,
        coding: str = "jpeg/rgb",
        mpp: str | None = "0.2500",
        tile: int = 240,
        macro: dict[str, Any] | None = None,
    ) -> Path:
        encode, compression, photometric = {
            "jpeg/rgb": (encode_jpeg_rgb, 7, "rgb"),
            "jpeg/ycc": (encode_jpeg, 7, "ycbcr"),
            "jpeg2000/rgb": (encode_jpeg2000, 33005, "rgb"),
            "jpeg2000/ycc": (_encode_jpeg2000_ycc, 33003, "rgb"),
        }[coding]
        height, width = levels[0].shape[:2]
        header = f"Aperio Image Library v11.2.1\n{width}x{height} ({tile}x{tile}) {coding}|AppMag = 40"
        header += "" if mpp is None else f"|MPP = {mpp}|Left = 25.7"
        red = np.zeros((100, 80, 3), np.uint8)
        red[..., 0] = 255
        options = {
            "jpeg/rgb": {"compressionargs": {"outcolorspace": "rgb"}},  # or tifffile calls it YCbCr
            "jpeg/ycc": {"subsampling": (2, 2)},
        }.get(coding, {})
        with tifffile.TiffWriter(path) as tiff:
            for number, pixels in enumerate(levels):
                tiff.write(
                    _tiles(pixels, tile, encode, frozenset()),
                    shape=pixels.shape,
                    dtype=np.uint8,
                    tile=(tile, tile),
                    compression=compression,
                    photometric=photometric,
                    description=header,
                    metadata=None,
                    **options,
                )
                if number == 0:
                    tiff.write(red, photometric="rgb", description=f"{header}\nthumbnail", metadata=None)
            tiff.write(red, photometric="rgb", subfiletype=1, description=f"{header}\nlabel 80x100", metadata=None)
            wide = np.ascontiguousarray(red.transpose(1, 0, 2))
            macro_header = f"{header}\nmacro 100x80"
            tiff.write(wide, photometric="rgb", subfiletype=9, description=macro_header, metadata=None, **(macro or {}))
        return path

    return write


def _encode_jpeg2000_ycc(part: RGB) -> bytes:
    red, green, blue = np.moveaxis(part.astype(np.float64), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    ycc = np.stack((luma, 0.564 * (blue - luma) + 128, 0.713 * (red - luma) + 128), axis=2)
    pixels = np.round(np.clip(ycc, 0, 255)).astype(np.uint8)
    return imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="j2k", mct=False)


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory: pytest.TempPathFactory, write_tiff: Callable[..., Path]) -> Path:
    """1500 x 1100 px at 0.25 um per pixel, levels 1, 4 and 16, JPEG tiles of 256 px, nothing a multiple of a tile."""
    pixels = texture(1500, 1100)
    levels = [reduce_by(pixels, factor) for factor in (1, 4, 16)]
    return write_tiff(tmp_path_factory.mktemp("slides") / "small.tif", levels)
