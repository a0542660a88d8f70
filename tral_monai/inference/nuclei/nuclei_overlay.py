# SPDX-License-Identifier: Apache-2.0
"""The picture to look at first: boxes in the colours of their classes, or on a slide their density, with a legend."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from tral_monai.errors import ConfigError
from tral_monai.inference.drawing import FAINT, INK, LINE, draw_scale_bar, font, thumbnail_or_grey
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.palette import NOT_ANALYSED_COLOUR, Rgb, given_colours
from tral_monai.inference.slide_writer import SlideWriter

if TYPE_CHECKING:
    from tral_monai.slides.slide import Slide

_COARSEST_FOR_BOXES_UM = 1.0  # per pixel of the picture; there, the box of a lymphocyte is 6 to 10 px wide
_SMALLEST_PICTURE_PX = 1000  # a small field is enlarged, so that its boxes can be told apart
_DENSITY_UM = 30.0  # standard deviation of the smoothing
_STRONGEST = 0.85  # share of the class colour where nuclei are densest


def render_nuclei(
    picture: npt.NDArray[np.uint8],
    nuclei: NucleusMap,
    *,
    title: str,
    colours: Mapping[str, Sequence[int]] | None = None,
) -> Image.Image:
    """Draw nuclei over a picture of their image.

    Where a pixel of the picture is at most 1 um wide, every nucleus gets its box. Else the picture turns grey and is
    tinted with the classes' colours, mixed by their share around a place, the stronger the more nuclei there are (full
    strength at the 99th percentile of the density). What could not be analysed is hatched.

    Args:
        picture: (h, w, 3) uint8 RGB of the whole image.
        nuclei: what was found.
        title: shown above, such as the file's name.
        colours: class colours that win over the map's own.

    Returns:
        An RGB image, larger than the picture by its title and legend.
    """
    palette = {**nuclei.colours, **given_colours(colours)}
    factor = math.ceil(_SMALLEST_PICTURE_PX / max(picture.shape[:2]))
    if factor > 1:
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = np.array([picture.shape[1] / nuclei.dimensions[0], picture.shape[0] / nuclei.dimensions[1]])
    boxes = nuclei.boxes_level0.astype(np.float64) * np.tile(scale, 2)
    um_per_px = nuclei.mpp_xy[0] / scale[0]
    as_density = len(nuclei) > 0 and um_per_px > _COARSEST_FOR_BOXES_UM
    if as_density:
        drawn = Image.fromarray(_density(picture, boxes, nuclei, palette, um_per_px))
    else:
        drawn = _boxes(picture, boxes, nuclei, palette)
    drawn = _hatched(drawn, nuclei.not_analysed_level0 * np.tile(scale, 2))
    size = max(12, round(max(drawn.size) / 80))
    draw_scale_bar(drawn, um_per_px, size)
    return _page(drawn, nuclei, palette, title, "density of nuclei" if as_density else "one box per nucleus", size)


def _boxes(
    picture: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float64], nuclei: NucleusMap, palette: Mapping[str, Rgb]
) -> Image.Image:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    width = max(1, round(max(image.size) / 600))
    for (x0, y0, x1, y1), label in zip(boxes.round().astype(int).tolist(), nuclei.labels.tolist(), strict=True):
        right, bottom = max(x0, x1 - 1), max(y0, y1 - 1)
        draw.rectangle((x0, y0, right, bottom), outline=palette[nuclei.classes[label]], width=width)
    return image


def _hatched(drawn: Image.Image, boxes: npt.NDArray[np.float64]) -> Image.Image:
    """Stripes over the parts that could not be analysed, as on tissue maps."""
    pixels = np.array(drawn)
    stripe = max(4, round(max(drawn.size) / 250))
    for x0, y0, x1, y1 in np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1).astype(int).tolist():
        part = pixels[y0:y1, x0:x1]
        y, x = np.ogrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
        dark = (x + y) // stripe % 2 == 0
        part[dark], part[~dark] = INK, NOT_ANALYSED_COLOUR
    return Image.fromarray(pixels)


def _density(
    picture: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float64],
    nuclei: NucleusMap,
    palette: Mapping[str, Rgb],
    um_per_px: float,
) -> npt.NDArray[np.uint8]:
    height, width = picture.shape[:2]
    column = np.clip((boxes[:, 0] + boxes[:, 2]) / 2, 0, width - 1).astype(np.int64)
    row = np.clip((boxes[:, 1] + boxes[:, 3]) / 2, 0, height - 1).astype(np.int64)
    total = np.zeros((height, width), dtype=np.float32)
    colour = np.zeros((height, width, 3), dtype=np.float32)
    for label, name in enumerate(nuclei.classes):
        here = nuclei.labels == label
        if not here.any():
            continue
        count = np.bincount(row[here] * width + column[here], minlength=height * width).reshape(height, width)
        smooth = ndimage.gaussian_filter(count.astype(np.float32), max(1.0, _DENSITY_UM / um_per_px))
        total += smooth
        colour += smooth[..., None] * np.array(palette[name], dtype=np.float32)
    full = float(np.percentile(total[row, column], 99))
    opacity = _STRONGEST * np.clip(total / full, 0, 1)[..., None]
    grey = (picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    mixed = colour / np.maximum(total, 1e-12)[..., None]
    return np.asarray(((1 - opacity) * grey + opacity * mixed).round(), dtype=np.uint8)


def _page(
    drawn: Image.Image, nuclei: NucleusMap, palette: Mapping[str, Rgb], title: str, shown: str, size: int
) -> Image.Image:
    """Title, picture and legend on one white page."""
    big, small = font(round(1.35 * size), "-Bold"), font(round(0.85 * size))
    legend = _legend(nuclei, palette, size)
    margin, gap, header = size, round(1.4 * size), round(3.8 * size)
    content_width = max(drawn.width + gap + legend.width, round(ImageDraw.Draw(drawn).textlength(title, font=big)))
    page = Image.new(
        "RGB", (margin + content_width + margin, header + max(drawn.height, legend.height) + margin), "white"
    )
    draw = ImageDraw.Draw(page)
    draw.text((margin, round(0.6 * size)), title, fill=INK, font=big)
    wide, high = nuclei.dimensions
    facts = f"{wide:,} x {high:,} px at {sum(nuclei.mpp_xy) / 2:.4g} µm/px  ·  {shown}"
    draw.text((margin, round(2.4 * size)), facts, fill=FAINT, font=small)
    page.paste(drawn, (margin, header))
    page.paste(legend, (margin + drawn.width + gap, header))
    return page


def _legend(nuclei: NucleusMap, palette: Mapping[str, Rgb], size: int) -> Image.Image:
    """A table of the classes: colour, name, nuclei, nuclei per mm2; what was looked at below."""
    normal, small = font(size), font(round(0.85 * size))
    counts, densities = nuclei.counts(), nuclei.per_mm2()
    looked_at = f"{nuclei.analysed_mm2:.3g} mm² of {'tissue' if nuclei.masked else 'image'}"
    name_x, step = round(1.9 * size), round(1.8 * size)
    widest = max([normal.getlength(name) for name in (*nuclei.classes, "Together")])
    count_x = name_x + round(widest + 5.5 * size)
    density_x = count_x + 6 * size
    failed = len(nuclei.failed_centres_level0)
    notes = [looked_at] + ([f"{failed} tiles not analysed"] if failed else [])
    width = max(density_x + 1, name_x + round(max(small.getlength(note) for note in notes)))
    legend = Image.new("RGB", (width, (len(nuclei.classes) + 2 + len(notes)) * step + size), "white")
    draw = ImageDraw.Draw(legend)
    draw.text((count_x, 0), "nuclei", fill=FAINT, font=small, anchor="ra")
    draw.text((density_x, 0), "per mm²", fill=FAINT, font=small, anchor="ra")
    y = step
    for name in nuclei.classes:
        draw.rounded_rectangle((0, y, 1.2 * size, y + 1.2 * size), radius=size // 4, fill=palette[name])
        ink = INK if counts[name] else FAINT
        draw.text((name_x, y), name, fill=ink, font=normal)
        draw.text((count_x, y), f"{counts[name]:,}", fill=ink, font=normal, anchor="ra")
        draw.text((density_x, y), _density_text(densities[name]), fill=ink, font=normal, anchor="ra")
        y += step
    draw.line((0, y + size // 5, density_x, y + size // 5), fill=LINE, width=max(1, size // 12))
    y += round(0.7 * size)
    together = len(nuclei) / nuclei.analysed_mm2 if nuclei.analysed_mm2 > 0 else None
    draw.text((name_x, y), "Together", fill=INK, font=normal)
    draw.text((count_x, y), f"{len(nuclei):,}", fill=INK, font=normal, anchor="ra")
    draw.text((density_x, y), _density_text(together), fill=INK, font=normal, anchor="ra")
    for note in notes:
        y += step
        draw.text((name_x, y), note, fill=FAINT, font=small)
    return legend


def _density_text(per_mm2: float | None) -> str:
    return "-" if per_mm2 is None else f"{per_mm2:,.0f}" if per_mm2 >= 10 or per_mm2 == 0 else f"{per_mm2:.1f}"


class NucleiOverlayWriter(SlideWriter):
    """Writes ``<name>_overlay.png`` for every image.

    Args:
        max_px: longest side of the image's picture.
        colours: class colours that win over the detector's own, name -> (r, g, b).

    Raises:
        ConfigError: a setting is out of range.
    """

    suffix = "_overlay.png"

    def __init__(self, *, max_px: int = 2000, colours: Mapping[str, Sequence[int]] | None = None) -> None:
        if max_px < 64:
            raise ConfigError(f"max_px must be at least 64, but is {max_px}")
        self.max_px, self.colours = max_px, given_colours(colours)

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours, "max_px": self.max_px}

    def write(self, path: str | os.PathLike[str], slide: Slide, prediction: NucleusMap) -> None:  # noqa: D102
        picture, title = thumbnail_or_grey(slide, self.max_px)
        render_nuclei(picture, prediction, title=title, colours=self.colours).save(path, format="PNG")
