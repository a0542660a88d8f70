# SPDX-License-Identifier: Apache-2.0
"""The class map as a palette PNG: one pixel per tile, its value the class, its colour the class's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tral_monai.inference.palette import Rgb, class_colours, given_colours
from tral_monai.inference.slide_writer import SlideWriter
from tral_monai.inference.tissue_map import TissueMap

LEGEND_KEY = "classes"  # key of the PNG's text chunk that holds the legend


def write_class_map(
    path: str | os.PathLike[str], tissue: TissueMap, *, colours: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Write a class map as a PNG with a palette and its legend.

    The legend is JSON in the text chunk ``classes``: a list of ``{"value", "name", "color"}``; ``step_level0`` and
    ``mpp`` say where the pixels lie.

    Args:
        path: the PNG file.
        tissue: the map.
        colours: class colours that win over the built-in ones.
    """
    names = tissue.classes.names
    palette = class_colours(names, colours)
    image = Image.fromarray(tissue.class_index)
    image.putpalette([part for name in names for part in palette[name]])
    text = PngInfo()
    text.add_text(LEGEND_KEY, json.dumps(legend(names, palette)))
    text.add_text("step_level0", repr(tissue.grid.step_level0))
    text.add_text("mpp", json.dumps(tissue.mpp_xy))
    image.save(path, format="PNG", optimize=True, pnginfo=text)


def read_class_map(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Read back what :func:`write_class_map` wrote.

    Args:
        path: the PNG file.

    Returns:
        (rows, columns) uint8 map values, and the name of each value.
    """
    with Image.open(path) as image:
        values = np.asarray(image, dtype=np.uint8)
        entries = json.loads(image.text[LEGEND_KEY])  # type: ignore[attr-defined]
    return values, tuple(entry["name"] for entry in entries)


def legend(names: Sequence[str], palette: Mapping[str, Rgb]) -> list[dict[str, object]]:
    """The meaning of a map's values, as plain data.

    Args:
        names: name of each value, from 0.
        palette: colour of each name.

    Returns:
        One ``{"value", "name", "color"}`` per value.
    """
    return [{"value": value, "name": name, "color": list(palette[name])} for value, name in enumerate(names)]


class ClassMapWriter(SlideWriter):
    """Writes ``<name>_classes.png`` for every slide.

    Args:
        colours: class colours that win over the built-in ones, name -> (r, g, b).
    """

    suffix = "_classes.png"

    def __init__(self, colours: Mapping[str, Sequence[int]] | None = None) -> None:
        self.colours = given_colours(colours)

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours}

    def write(self, path: str | os.PathLike[str], slide: object, prediction: TissueMap) -> None:  # noqa: D102
        write_class_map(path, prediction, colours=self.colours)
