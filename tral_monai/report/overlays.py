# SPDX-License-Identifier: Apache-2.0
"""The final model's maps of whole slides, as inference left them in ``<run_dir>/maps``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tral_monai.report.pictures import overlay_uri

LEGEND_KEY = "classes"  # that of inference.class_map_png, whose import would load torch; a test compares them
OVERLAYS_IN_ALL = 4
OVERLAY_PX = 1400
NOT_TISSUE = "Background"


@dataclass(frozen=True)
class LegendEntry:
    """One class of a map: its name, its colour as #rrggbb, and its part of the tiles on tissue in 0..1."""

    name: str
    color: str
    share: float


@dataclass(frozen=True)
class Overlay:
    """The map over one slide.

    Attributes:
        slide: first part of the map's file name.
        uri: the reduced picture as a data URI; empty where it cannot be read.
        width: its width in pixels.
        height: its height in pixels.
        legend: the classes that occur, largest part first; empty where no class map lies beside the overlay.
        problem: why there is no picture, or an empty string.
    """

    slide: str
    uri: str
    width: int
    height: int
    legend: tuple[LegendEntry, ...]
    problem: str = ""


def read_overlays(run_dir: Path) -> tuple[tuple[Overlay, ...], int]:
    """The first four overlays of a run by name, and how many more there are."""
    paths = sorted((run_dir / "maps").glob("*_overlay.png"))
    return tuple(_read(path) for path in paths[:OVERLAYS_IN_ALL]), max(len(paths) - OVERLAYS_IN_ALL, 0)


def _read(path: Path) -> Overlay:
    stem = path.name.removesuffix("_overlay.png")
    try:
        uri, width, height = overlay_uri(path, max_px=OVERLAY_PX)
    except (OSError, Image.DecompressionBombError) as error:
        # One broken picture must not cost the report: the page says that it is missing.
        return Overlay(stem, "", 0, 0, (), f"its overlay cannot be read ({type(error).__name__})")
    return Overlay(stem, uri, width, height, _legend(path.with_name(f"{stem}_classes.png")))


def _legend(path: Path) -> tuple[LegendEntry, ...]:
    if not path.is_file():
        return ()
    try:
        with Image.open(path) as image:
            counts = np.bincount(np.asarray(image, dtype=np.uint8).ravel(), minlength=256)
            entries = json.loads(getattr(image, "text", {}).get(LEGEND_KEY, "[]"))
    except (OSError, ValueError):
        return ()
    tissue = [entry for entry in entries if entry["name"] != NOT_TISSUE and counts[entry["value"]] > 0]
    total = sum(int(counts[entry["value"]]) for entry in tissue)
    legend = [
        LegendEntry(entry["name"], "#{:02x}{:02x}{:02x}".format(*entry["color"]), int(counts[entry["value"]]) / total)
        for entry in tissue
    ]
    return tuple(sorted(legend, key=lambda entry: -entry.share))
