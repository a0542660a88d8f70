# SPDX-License-Identifier: Apache-2.0
"""The picture to look at first: the slide in grey, its classes in colour over it, a legend with areas, a scale bar."""

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
from tral_monai.inference.drawing import FAINT, INK, LINE, SMALLEST_PICTURE_PX, draw_scale_bar, font, thumbnail_or_grey
from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.palette import Rgb, class_colours, given_colours
from tral_monai.inference.slide_writer import SlideWriter
from tral_monai.inference.tissue_map import TissueMap

if TYPE_CHECKING:
    from tral_monai.slides.slide import Slide


_BORDER_GREY = 0.15  # what is left of the grey at borders between classes
_PNG_LEVEL = 3  # of 9: half the time of the usual 6, a tenth larger


def render_overlay(
    thumbnail: npt.NDArray[np.uint8],
    tissue: TissueMap,
    *,
    title: str,
    colours: Mapping[str, Sequence[int]] | None = None,
    opacity: float = 0.45,
) -> Image.Image:
    """Draw a tissue map over a picture of its slide.

    The tissue is shown in grey under its classes, because the stain's own pink and blue would shift their colours.
    Borders between classes are drawn in full colour; tiles not analysed are hatched.

    Args:
        thumbnail: (h, w, 3) uint8 RGB of the whole slide.
        tissue: the map.
        title: shown above, such as the slide's file name.
        colours: class colours that win over the built-in ones.
        opacity: share of the class colour, 0 to 1.

    Returns:
        An RGB image, larger than the thumbnail by its title and legend.

    Raises:
        ConfigError: ``opacity`` is not between 0 and 1.
    """
    if not 0.0 <= opacity <= 1.0:
        raise ConfigError(f"opacity must lie between 0 and 1, but is {opacity}")
    factor = math.ceil(SMALLEST_PICTURE_PX / max(thumbnail.shape[:2]))
    if factor > 1:
        thumbnail = thumbnail.repeat(factor, axis=0).repeat(factor, axis=1)
    palette = class_colours(tissue.classes.names, colours)
    picture = Image.fromarray(_coloured(thumbnail, tissue, palette, opacity))
    size = max(12, round(max(picture.size) / 80))
    um_per_px = tissue.mpp_xy[0] * tissue.grid.dimensions[0] / picture.width
    draw_scale_bar(picture, um_per_px, size)
    return _page(Image.fromarray(thumbnail), picture, tissue, palette, title, size)


def _coloured(
    thumbnail: npt.NDArray[np.uint8], tissue: TissueMap, palette: Mapping[str, Rgb], opacity: float
) -> npt.NDArray[np.uint8]:
    height, width = thumbnail.shape[:2]
    classes = tissue.classes
    shown = tissue.class_index[
        np.ix_(_cell_of_pixel(tissue.grid.y_edges_level0, height), _cell_of_pixel(tissue.grid.x_edges_level0, width))
    ]
    inside = shown != classes.background
    line = max(1, round(max(height, width) / 1000))
    border = (ndimage.maximum_filter(shown, 1 + 2 * line) != shown) | (
        ndimage.minimum_filter(shown, 1 + 2 * line) != shown
    )
    grey = np.asarray(Image.fromarray(thumbnail).convert("L"))
    out = thumbnail.copy()
    for where, share in ((inside & ~border, opacity), (inside & border, 1 - (1 - opacity) * _BORDER_GREY)):
        out[where] = _tints(palette, classes, share)[shown[where], grey[where]]
    stripe = max(4, round(max(height, width) / 250))
    y, x = np.ogrid[:height, :width]
    hatched = (shown == classes.not_analysed) & ((x + y) // stripe % 2 == 0)
    out[hatched] = INK
    return out


def _tints(palette: Mapping[str, Rgb], classes: MapClasses, opacity: float) -> npt.NDArray[np.uint8]:
    """(classes, 256, 3): every grey level under every class colour."""
    colours = np.array([palette[name] for name in classes.names], dtype=np.float32)[:, None]
    greys = np.arange(256, dtype=np.float32)[:, None]
    return ((1.0 - opacity) * greys + opacity * colours).round().astype(np.uint8)


def _cell_of_pixel(edges_level0: npt.NDArray[np.int64], pixels: int) -> npt.NDArray[np.int64]:
    """Which cell the middle of each thumbnail pixel lies in."""
    middles = (np.arange(pixels) + 0.5) * edges_level0[-1] / pixels
    return np.searchsorted(edges_level0, middles, side="right") - 1


def _page(
    slide: Image.Image,
    picture: Image.Image,
    tissue: TissueMap,
    palette: Mapping[str, Rgb],
    title: str,
    size: int,
) -> Image.Image:
    """Title, picture and legend on one white page, and the slide itself where there is room below the legend."""
    big, small = font(round(1.35 * size), "-Bold"), font(round(0.85 * size))
    legend = _legend(tissue, palette, size)
    margin, gap, header = size, round(1.4 * size), round(3.8 * size)
    content_width = max(picture.width + gap + legend.width, round(ImageDraw.Draw(picture).textlength(title, font=big)))
    page = Image.new(
        "RGB",
        (margin + content_width + margin, header + max(picture.height, legend.height) + margin),
        "white",
    )
    draw = ImageDraw.Draw(page)
    draw.text((margin, round(0.6 * size)), title, fill=INK, font=big)
    wide, high = tissue.grid.dimensions
    mpp = sum(tissue.mpp_xy) / 2
    facts = f"{wide:,} x {high:,} px at {mpp:.4g} µm/px  ·  one cell is {tissue.grid.step_level0 * mpp:.3g} µm wide"
    draw.text((margin, round(2.4 * size)), facts, fill=FAINT, font=small)
    page.paste(picture, (margin, header))
    left = margin + picture.width + gap
    page.paste(legend, (left, header))
    room = picture.height - legend.height - 3 * size
    if room >= 12 * size:
        slide = slide.copy()
        slide.thumbnail((legend.width, room), Image.Resampling.LANCZOS)
        page.paste(slide, (left, header + picture.height - slide.height))
        draw.text((left, header + picture.height - slide.height - size // 3), "The slide", FAINT, small, anchor="lb")
    return page


def _legend(tissue: TissueMap, palette: Mapping[str, Rgb], size: int) -> Image.Image:
    """A table of the model's classes and whatever else is on the map: colour, name, area, share of the tissue."""
    normal, small = font(size), font(round(0.85 * size))
    names, areas, tissue_mm2 = tissue.classes.names, tissue.areas_mm2(), tissue.tissue_mm2()
    rows = [name for name in names[1:] if name in tissue.classes.model_classes or areas[name] > 0]
    name_x, step = round(1.9 * size), round(1.8 * size)
    area_x = name_x + round(max(normal.getlength(name) for name in [*rows, "Tissue"]) + 5.0 * size)
    share_x = area_x + 5 * size
    legend = Image.new("RGB", (share_x + 1, (len(rows) + 2) * step + size), "white")
    draw = ImageDraw.Draw(legend)
    draw.text((area_x, 0), "mm²", fill=FAINT, font=small, anchor="ra")
    draw.text((share_x, 0), "of tissue", fill=FAINT, font=small, anchor="ra")
    y = step
    for name in rows:
        draw.rounded_rectangle((0, y, 1.2 * size, y + 1.2 * size), radius=size // 4, fill=palette[name])
        if name == names[tissue.classes.not_analysed]:
            draw.line((0, y + 1.2 * size, 1.2 * size, y), fill=INK, width=max(2, size // 5))
        ink = INK if areas[name] > 0 else FAINT
        share = f"{areas[name] / tissue_mm2:.1%}" if areas[name] > 0 and tissue_mm2 else "-"
        draw.text((name_x, y), name, fill=ink, font=normal)
        draw.text((area_x, y), _mm2(areas[name]), fill=ink, font=normal, anchor="ra")
        draw.text((share_x, y), share, fill=ink, font=normal, anchor="ra")
        y += step
    draw.line((0, y + size // 5, share_x, y + size // 5), fill=LINE, width=max(1, size // 12))
    y += round(0.7 * size)
    draw.text((name_x, y), "Tissue", fill=INK, font=normal)
    draw.text((area_x, y), _mm2(tissue_mm2), fill=INK, font=normal, anchor="ra")
    return legend


def _mm2(area: float) -> str:
    return "0" if area == 0 else f"{area:.3f}" if area < 1 else f"{area:.2f}" if area < 100 else f"{area:.0f}"


class OverlayWriter(SlideWriter):
    """Writes ``<name>_overlay.png`` for every slide.

    Args:
        max_px: longest side of the slide's picture.
        colours: class colours that win over the built-in ones, name -> (r, g, b).
        opacity: share of the class colour, 0 to 1.

    Raises:
        ConfigError: a setting is out of range.
    """

    suffix = "_overlay.png"

    def __init__(
        self, *, max_px: int = 2000, colours: Mapping[str, Sequence[int]] | None = None, opacity: float = 0.45
    ) -> None:
        if max_px < 64:
            raise ConfigError(f"max_px must be at least 64, but is {max_px}")
        if not 0.0 <= opacity <= 1.0:
            raise ConfigError(f"opacity must lie between 0 and 1, but is {opacity}")
        self.max_px, self.colours, self.opacity = max_px, given_colours(colours), opacity

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours, "max_px": self.max_px, "opacity": self.opacity}

    def write(self, path: str | os.PathLike[str], slide: Slide, prediction: TissueMap) -> None:  # noqa: D102
        thumbnail, title = thumbnail_or_grey(slide, self.max_px)
        overlay = render_overlay(thumbnail, prediction, title=title, colours=self.colours, opacity=self.opacity)
        overlay.save(path, format="PNG", compress_level=_PNG_LEVEL)
