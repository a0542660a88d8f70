# SPDX-License-Identifier: Apache-2.0
"""Where the tissue is: a mask at low magnification, and how much of a square it covers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from tral_monai.errors import ConfigError, SlideReadError
from tral_monai.slides.backend import RGB, WHITE, TileSource, read_window
from tral_monai.slides.magnification import resolve
from tral_monai.slides.resample import ResampledTiles
from tral_monai.slides.slide import Slide
from tral_monai.slides.tile_cache import TileCache

Mask = NDArray[np.bool_]

MIN_OBJECT_UM2 = 10_000.0
"""Smaller pieces are debris: a square of 100 um, three tiles at 40x wide."""

MAX_HOLE_UM2 = 150_000.0
"""Smaller holes are lumina and vessels, which belong to the tissue around them."""

_CACHE_BYTES = 64 << 20
_BAND_ROWS = 128  # of the mask, for its summed areas
_STRIP_PX = 1 << 18  # pixels of the mask that are computed at once, at 60 bytes each
_CHUNK = 1 << 16  # squares whose coverage is computed at once, at 150 bytes each
_PAPER_MAX_GREEN = 250
_PAPER_CLOSING_PX = 4
_MIN_OD = 0.04  # stitched fields of glass differ by up to 0.03; fat between its strands has 0.04 to 0.08
_MIN_COLOUR = (
    0.015,
    0.1,
)  # stain absorbs colours differently, dust, shadow and black pen do not: in OD, as a share of it
_INK_REACH_UM = 60.0
_SMOOTH_UM = 4.0
_SMOOTH_SIGMAS = 4.0  # where the smoothing ends
_GLASS_ABOVE = 190
_CLOSE_UM = 24.0


@dataclass(frozen=True)
class TissueMask:
    """Tissue of a slide at low magnification.

    Attributes:
        mask: bool (height, width), True on tissue; pixel (0, 0) starts at the slide's top left corner.
        mpp: Micrometres per pixel of the mask.
        downsample_level0: Level-0 pixels per pixel of the mask.
        unreadable: What the slide's reader said of regions that it could not decode, where that was no error. Nobody
            knows what is there, so the mask is True: who looks there reads it at another magnification, or reports it.
    """

    mask: Mask
    mpp: float
    downsample_level0: float
    unreadable: tuple[str, ...] = ()

    def coverage(self, centres_xy_level0: ArrayLike, size_level0: float) -> NDArray[np.float64]:
        """Return how much of a square around each centre is tissue.

        Args:
            centres_xy_level0: (n, 2) centres (x, y) in level-0 pixels.
            size_level0: Side of the squares in level-0 pixels.

        Returns:
            float64 (n,), 0 to 1: the exact area of the mask's pixels inside of the square. Outside of the slide is no
            tissue.
        """
        if not size_level0 > 0:
            raise ConfigError(f"size_level0 must be positive, got {size_level0}")
        centres = np.asarray(centres_xy_level0).reshape(-1, 2)
        covered = np.zeros(len(centres))
        # Summed areas of one band of the mask's rows at a time. Bands are places on the slide, so that what a square
        # gets does not depend on which others are asked for, not even in its last digit.
        reach = size_level0 / 2 / self.downsample_level0 + 1
        rows = max(_BAND_ROWS, math.ceil(reach))
        last = self.mask.shape[0] // rows + 1
        band = np.clip(centres[:, 1] // (rows * self.downsample_level0), -1, last).astype(np.int32)
        order = np.argsort(band, kind="stable")
        ends = np.cumsum(np.bincount(band + 1, minlength=last + 2))
        for number, (start, end) in enumerate(zip((0, *ends[:-1]), ends, strict=True), start=-1):
            if start < end:
                first = min(max(math.floor(number * rows - reach), 0), self.mask.shape[0])
                area = _summed(self.mask[first : math.ceil((number + 1) * rows + reach) if number < last else None])
                for some in np.array_split(order[start:end], -(-(end - start) // _CHUNK)):
                    covered[some] = self._covered(area, first, centres[some], size_level0)
        return covered

    def _covered(
        self, area: NDArray[np.int32], first: int, centres: NDArray[Any], size_level0: float
    ) -> NDArray[np.float64]:
        """Return the coverage around (n, 2) centres, given the summed areas of the mask's rows from `first` on."""
        low = (centres - size_level0 / 2) / self.downsample_level0
        high = (centres + size_level0 / 2) / self.downsample_level0
        for y in (low[:, 1], high[:, 1]):
            np.clip(y, 0, self.mask.shape[0], out=y)
            y -= first

        def up_to(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            # Between pixel corners the area is bilinear, so this is exact and not an approximation.
            return np.asarray(ndimage.map_coordinates(area, (y, x), output=np.float64, order=1, mode="nearest"))

        inside = (
            up_to(high[:, 0], high[:, 1])
            - up_to(low[:, 0], high[:, 1])
            - up_to(high[:, 0], low[:, 1])
            + up_to(low[:, 0], low[:, 1])
        )
        return np.clip(inside * (self.downsample_level0 / size_level0) ** 2, 0.0, 1.0)


def _summed(mask: Mask) -> NDArray[np.int32]:
    """Return how many pixels are True above and left of every pixel corner."""
    area = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    np.cumsum(mask, axis=0, dtype=np.int32, out=area[1:, 1:])
    return np.cumsum(area, axis=1, out=area)


def tissue_mask(
    slide: Slide,
    *,
    method: Literal["auto", "paper"] = "auto",
    mpp: float = 8.0,
    min_object_um2: float | None = None,
    max_hole_um2: float | None = None,
    tolerant: bool = False,
) -> TissueMask:
    """Find the tissue of a slide.

    Takes up to 9 bytes per pixel of the mask while it works, three of them for the picture, and 1 per pixel for what it
    returns; at 8 um per pixel that is 0.14 MB and 0.016 MB per square millimetre of the slide. On top come at most
    64 MB of decoded tiles and tens of MB that do not depend on the slide.

    Args:
        slide: The slide.
        method: "auto" compares every pixel with the slide's own glass: tissue absorbs more, and in colour. Pen and ink
            count only where they touch tissue. A slide of glass alone gives an empty mask, a slide without glass
            a full one.
            "paper" is the rule of TRI-AL: tissue = not (green > 250), closed with a 4 x 4 square.
        mpp: Micrometres per pixel of the mask.
        min_object_um2: Pieces smaller than this are removed; 10,000 um2 for "auto", none for "paper".
        max_hole_um2: Holes smaller than this are filled; 150,000 um2 for "auto", none for "paper".
        tolerant: Regions that cannot be decoded count as tissue, instead of raising an error.

    Raises:
        ConfigError: Unknown method, an mpp that is not positive, or a negative area.
        SlideReadError: The slide cannot be decoded; where `tolerant`, nothing of it can.
    """
    if method not in ("auto", "paper"):
        raise ConfigError(f"method must be 'auto' or 'paper', got {method!r}")
    defaults = (MIN_OBJECT_UM2, MAX_HOLE_UM2) if method == "auto" else (0.0, 0.0)
    object_um2 = defaults[0] if min_object_um2 is None else min_object_um2
    hole_um2 = defaults[1] if max_hole_um2 is None else max_hole_um2
    if object_um2 < 0 or hole_um2 < 0:
        raise ConfigError(f"areas must not be negative, got min_object_um2={object_um2}, max_hole_um2={hole_um2}")
    if not (math.isfinite(mpp) and mpp > 0):
        raise ConfigError(f"mpp must be a positive number of micrometres per pixel, got {mpp}")
    mpp = max(mpp, slide.mpp)
    downsample = resolve(slide.level_downsamples, mpp / slide.mpp).downsample
    width, height = (max(math.ceil(side / downsample), 1) for side in slide.dimensions)
    image, unknown, unreadable = _read(slide.source(mpp / slide.mpp), width, height, tolerant)
    mask_mpp = downsample * slide.mpp
    if method == "auto":
        mask, ink = _stained(image, mask_mpp)
        del image  # three of the few bytes per pixel of the mask
        _drop_small(mask, object_um2 / mask_mpp**2)
        mask |= _near(ink, mask, mask_mpp)
        del ink
        mask = _close(mask, _disk(max(round(_CLOSE_UM / mask_mpp), 1)))
    else:
        mask = _close(image[..., 1] <= _PAPER_MAX_GREEN, np.ones((_PAPER_CLOSING_PX, _PAPER_CLOSING_PX), bool))
        del image
    _drop_small(mask, object_um2 / mask_mpp**2)
    _fill_holes(mask, hole_um2 / mask_mpp**2)
    mask |= unknown
    return TissueMask(mask, mask_mpp, downsample, unreadable)


def _read(source: TileSource, width: int, height: int, tolerant: bool) -> tuple[RGB, Mask, tuple[str, ...]]:
    """Return the whole source with white where it cannot be decoded, where that is, and why."""
    unknown = np.zeros((height, width), bool)
    messages: dict[str, None] = {}
    # Of a resampled source, the tiles of the file are what decodes or not: one of its own tiles may hold many of them.
    level, ratio = (source.inner, source.ratio) if isinstance(source, ResampledTiles) else (source, 1.0)
    read = 0
    cache = TileCache(_CACHE_BYTES)

    def level_tile(column: int, row: int) -> RGB:
        nonlocal read
        known = cache.get((column, row))
        if known is not None:
            return known
        try:
            pixels = level.read_tile(column, row)
        except SlideReadError as error:
            if not tolerant:
                raise
            messages[str(error)] = None
            tile_w, tile_h = level.tile_size
            reach = 0 if level is source else 1  # pixels that the resampling filter mixes in
            x0, y0 = math.floor(column * tile_w / ratio) - reach, math.floor(row * tile_h / ratio) - reach
            x1, y1 = math.ceil((column + 1) * tile_w / ratio) + reach, math.ceil((row + 1) * tile_h / ratio) + reach
            unknown[max(y0, 0) : y1, max(x0, 0) : x1] = True
            pixels = np.full((tile_h, tile_w, 3), WHITE, np.uint8)
        else:
            read += 1
        if level is not source:  # neighbouring resampled tiles share tiles of the file
            cache.put((column, row), pixels)
        return pixels

    def resampled_tile(column: int, row: int) -> RGB:
        assert isinstance(source, ResampledTiles)
        return source.read_tile(column, row, tile=level_tile)

    image = read_window(source, 0, 0, width, height, tile=level_tile if level is source else resampled_tile)
    if messages and not read:
        raise SlideReadError(next(iter(messages)))
    return image, unknown, tuple(messages)


def _strips(shape: tuple[int, ...], margin: int = 0) -> Iterator[tuple[slice, slice]]:
    """Yield rows, and the same rows with a margin as far as there is one, so that temporary arrays stay small."""
    height, width = shape[:2]
    step = max(_STRIP_PX // width, 4 * margin, 1)
    for start in range(0, height, step):
        end = min(start + step, height)
        yield slice(start, end), slice(max(start - margin, 0), min(end + margin, height))


def _stained(image: RGB, mpp: float) -> tuple[Mask, Mask]:
    """Return what is stained more than the slide's own glass, in optical density, and which ink is; see `tissue_mask`.

    Strip by strip, where every pixel gets what it would get from the whole image.
    """
    glass = _glass_colour(image)
    sigma = _SMOOTH_UM / mpp
    radius = math.ceil(_SMOOTH_SIGMAS * sigma)
    tissue, ink = np.empty(image.shape[:2], bool), np.empty(image.shape[:2], bool)
    for rows, around in _strips(image.shape, margin=radius):
        pixels = image[around].astype(np.float32)
        smooth = ndimage.gaussian_filter(pixels, (sigma, sigma, 0), truncate=_SMOOTH_SIGMAS)
        smooth = smooth[rows.start - around.start : rows.stop - around.start]
        # Optical density per channel, 0 on glass.
        red, green, blue = (np.maximum(np.log10((glass[i] + 1) / (smooth[..., i] + 1)), 0) for i in range(3))
        strength = np.maximum(np.maximum(red, green), blue)
        weakest = np.minimum(np.minimum(red, green), blue)
        coloured = strength - weakest > np.maximum(_MIN_COLOUR[0], _MIN_COLOUR[1] * strength)
        stained = (strength > _MIN_OD) & coloured
        # Green and blue ink take out red; H&E and DAB take out green.
        ink[rows] = stained & (red > 1.3 * green) & (red > 0.15)
        tissue[rows] = stained & ~ink[rows]
    return tissue, ink


def _near(ink: Mask, tissue: Mask, mpp: float) -> Mask:
    """Remove, in place, the ink that lies too far from tissue, and return the rest."""
    margin = math.floor(_INK_REACH_UM / mpp) + 1
    for rows, around in _strips(ink.shape, margin=margin):
        columns = np.flatnonzero(ink[rows].any(axis=0))
        if not len(columns):
            continue
        across = slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1)
        part = tissue[around, across]
        if part.any():
            distance = ndimage.distance_transform_edt(~part)[rows.start - around.start :][: rows.stop - rows.start]
            ink[rows, across] &= distance * mpp <= _INK_REACH_UM
        else:
            ink[rows] = False
    return ink


def _glass_colour(image: RGB) -> NDArray[np.float32]:
    """Return the commonest bright grey of the slide; a scanner's usual glass where there is next to none."""
    levels = 256 - _GLASS_ABOVE
    white, counts = 0, np.zeros((3, levels, levels), np.int64)  # channel, its green, its value
    for rows, _ in _strips(image.shape):
        channels = [image[rows, :, i] for i in range(3)]
        low = np.minimum(np.minimum(channels[0], channels[1]), channels[2])
        high = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
        candidates = image[rows][(low > _GLASS_ABOVE) & (high - low < 12)].astype(np.int64) - _GLASS_ABOVE
        # Scanners fill what they did not scan with pure white, which says nothing about the glass.
        pure = candidates.min(axis=1, initial=levels) == levels - 1
        white += int(pure.sum())
        for channel, values in enumerate(candidates[~pure].T):
            pairs = candidates[~pure, 1] * levels + values
            counts[channel] += np.bincount(pairs, minlength=levels * levels).reshape(levels, levels)
    area = image.shape[0] * image.shape[1]
    if counts[1].sum() < 0.01 * area:
        counts[:, -1, -1] += white
    green = counts[1].sum(axis=1)
    if green.sum() < 0.005 * area:
        return np.full(3, 245, np.float32)
    mode = int(green.argmax())
    ranked = counts[:, max(mode - 3, 0) : mode + 4].sum(axis=1).cumsum(axis=1)
    total = int(ranked[0, -1])
    medians = [[np.searchsorted(one, n, side="right") for n in ((total - 1) // 2, total // 2)] for one in ranked]
    return (np.mean(medians, axis=1) + _GLASS_ABOVE).astype(np.float32)


def _disk(radius: int) -> Mask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius)


def _close(mask: Mask, footprint: Mask) -> Mask:
    """Morphological closing that treats the outside of the slide as a continuation of its edge."""
    margin = max(footprint.shape)
    padded = np.pad(mask, margin, mode="edge")
    return np.ascontiguousarray(ndimage.binary_closing(padded, footprint)[margin:-margin, margin:-margin])


def _sizes(labels: NDArray[np.int32], number: int) -> NDArray[np.int64]:
    """Return how many pixels carry each label from 0 to `number`; numpy alone would copy all labels as int64."""
    sizes = np.zeros(number + 1, np.int64)
    for rows, _ in _strips(labels.shape):
        found = np.bincount(labels[rows].ravel())
        sizes[: len(found)] += found
    return sizes


def _drop_small(mask: Mask, min_px: float) -> None:
    """Remove, in place, pieces smaller than `min_px`."""
    if min_px <= 1:
        return
    labels = np.empty(mask.shape, np.int32)
    keep = _sizes(labels, ndimage.label(mask, output=labels)) >= min_px
    keep[0] = False
    for rows, _ in _strips(mask.shape):
        mask[rows] = keep[labels[rows]]


def _fill_holes(mask: Mask, max_px: float) -> None:
    """Fill, in place, holes smaller than `max_px` that do not reach the edge of the slide."""
    labels = np.empty(mask.shape, np.int32)
    fill = _sizes(labels, ndimage.label(~mask, output=labels)) < max_px
    fill[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        fill[edge] = False
    for rows, _ in _strips(mask.shape):
        mask[rows] |= fill[labels[rows]]
