# SPDX-License-Identifier: Apache-2.0
"""Pictures for the page: tiles and thumbnails of slides, overlays of the final model, all as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from tral_monai.errors import SlideError
from tral_monai.slides.slide import Slide, open_slide

TILE_PX = 128  # edge of the tiles that the model sees
TILE_MAGNIFICATION = 40.0
CONTEXT_MAGNIFICATION = 10.0
JPEG_QUALITY = 82


class SlideSource(NamedTuple):
    """Where a slide lies and the mpp that the run used for it."""

    path: Path
    mpp: float


class Thumbnail(NamedTuple):
    """A whole slide as a data URI, its size in pixels, and level-0 pixels per thumbnail pixel."""

    uri: str
    width: int
    height: int
    downsample_level0: float


def svg_uri(svg: str) -> str:
    """SVG text as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def jpeg_uri(rgb: NDArray[np.uint8], *, quality: int = JPEG_QUALITY) -> str:
    """An RGB array (H, W, 3) uint8 as a JPEG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def overlay_uri(path: Path, *, max_px: int) -> tuple[str, int, int]:
    """An image file downscaled to at most ``max_px`` on its longer side: its data URI (JPEG), width and height."""
    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    rgba.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    on_white = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    rgb = np.asarray(on_white.convert("RGB"))
    return jpeg_uri(rgb), rgb.shape[1], rgb.shape[0]


def slide_sources(run_dir: Path, sample_ids: Iterable[int]) -> dict[int, SlideSource]:
    """Slide file and mpp of the samples, from ``<run_dir>/index.parquet``; empty where the run has no index."""
    path = run_dir / "index.parquet"
    if not path.is_file():
        return {}
    table = pd.read_parquet(path, columns=["id", "slide_path", "slide_mpp"])
    table = table[table["id"].isin(list(sample_ids))]
    sources = {
        (str(slide), float(mpp)): SlideSource(Path(str(slide)), float(mpp))
        for slide, mpp in table[["slide_path", "slide_mpp"]].drop_duplicates().itertuples(index=False)
    }
    rows = zip(table["id"], table["slide_path"], table["slide_mpp"], strict=True)
    return {int(id_): sources[str(slide), float(mpp)] for id_, slide, mpp in rows}


@dataclass
class SlidePictures:
    """Reads pictures from the slides of a run; a slide that cannot be read is remembered, not raised.

    Args:
        sources: slide file by sample id.
    """

    sources: Mapping[int, SlideSource]
    problems: dict[str, str] = field(default_factory=dict)
    """Why no pictures of a slide are shown, by the slide's file name."""
    _open: dict[Path, Slide] = field(default_factory=dict, repr=False)

    def tile(self, sample_id: int, slide: str, centre_xy_level0: tuple[int, int], magnification: float) -> str | None:
        """The 128 px tile around a centre at a magnification as a data URI, or None where the slide cannot be read."""
        opened = self._slide(sample_id, slide)
        if opened is None:
            return None
        side = TILE_PX * (10.0 / magnification) / opened.mpp
        corner = (round(centre_xy_level0[0] - side / 2), round(centre_xy_level0[1] - side / 2))
        try:
            return jpeg_uri(opened.read(corner, (TILE_PX, TILE_PX), magnification=magnification))
        except SlideError as error:
            self.problems[slide] = f"a region could not be read ({type(error).__name__})"
            return None

    def thumbnail(self, sample_id: int, slide: str, *, max_px: int) -> Thumbnail | None:
        """The whole slide, at most ``max_px`` on its longer side, or None where it cannot be read."""
        opened = self._slide(sample_id, slide)
        if opened is None:
            return None
        try:
            rgb = opened.thumbnail(max_px)
        except SlideError as error:
            self.problems[slide] = f"no thumbnail could be read ({type(error).__name__})"
            return None
        return Thumbnail(jpeg_uri(rgb), rgb.shape[1], rgb.shape[0], opened.dimensions[0] / rgb.shape[1])

    def _slide(self, sample_id: int, slide: str) -> Slide | None:
        if slide in self.problems:
            return None
        source = self.sources.get(sample_id)
        if source is None:
            self.problems[slide] = "the run's index.parquet does not say where it lies"
            return None
        if source.path not in self._open:
            if not source.path.exists():
                self.problems[slide] = "its file is no longer where it was"
                return None
            try:
                self._open[source.path] = open_slide(source.path, mpp=source.mpp)
            except SlideError as error:
                # The message would name the folder; a report names a slide by its file name only.
                self.problems[slide] = f"it could not be opened ({type(error).__name__})"
                return None
        return self._open[source.path]

    def close(self) -> None:
        """Close every slide that was opened."""
        for slide in self._open.values():
            slide.close()
        self._open.clear()

    def __enter__(self) -> SlidePictures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
