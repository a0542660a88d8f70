# SPDX-License-Identifier: Apache-2.0
"""A region: a rectangle of a slide that a person looks at and annotates as a whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import shapely
from shapely.geometry.base import BaseGeometry

from tral_monai.errors import ConfigError

Purpose = Literal["train", "val"]
"""What the answer is for: to train on, or to measure models by; never both."""


@dataclass(frozen=True, order=True)
class Region:
    """A rectangle of a slide in whole level-0 pixels.

    Args:
        slide: file name of the slide.
        x_level0: column of its left edge.
        y_level0: row of its upper edge.
        width_level0: pixels across.
        height_level0: pixels down.

    Raises:
        ConfigError: it has no area.
    """

    slide: str
    x_level0: int
    y_level0: int
    width_level0: int
    height_level0: int

    def __post_init__(self) -> None:
        if self.width_level0 < 1 or self.height_level0 < 1:
            raise ConfigError(f"{self.slide}: a region must be 1 pixel or more across, but is {self.bbox_level0}")

    @property
    def id(self) -> int:
        """The same number for the same rectangle of the same slide, on any machine: 62 bits of a hash."""
        text = "\0".join(map(str, (self.slide, *self.bbox_level0)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2

    @property
    def bbox_level0(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) in level-0 pixels, as MONAI Label and QuPath give a box."""
        return self.x_level0, self.y_level0, self.width_level0, self.height_level0

    @property
    def polygon(self) -> shapely.Polygon:
        """Its outline, level-0 pixels."""
        x, y, width, height = self.bbox_level0
        return shapely.box(x, y, x + width, y + height)


class RegionQuery(NamedTuple):
    """One region that a strategy chose, with the reason why; ``class_asked`` is None where no class was asked."""

    region: Region
    purpose: Purpose
    class_asked: str | None
    score: float
    reason: str


@dataclass(frozen=True)
class AskedRegion:
    """A region of a round's query as it stands now.

    Attributes:
        region: where it lies.
        purpose: what its answer is for.
        round: the round that asks.
        rank: place in the query, from 0.
        class_asked: the class that the annotator is asked for, if any.
        score: the strategy's score.
        reason: one sentence.
        answered: whether somebody has submitted it.
        reserved_by: who holds it at the moment, or None.
        reserved_until: end of the reservation, seconds since 1970 (UTC); 0 without one.
    """

    region: Region
    purpose: Purpose
    round: int
    rank: int
    class_asked: str | None
    score: float
    reason: str
    answered: bool = False
    reserved_by: str | None = None
    reserved_until: float = 0.0


@dataclass(frozen=True)
class RegionAnswer:
    """What a person drew in one region.

    Attributes:
        region: the region; all of it was looked at, so what is not drawn in it is not there.
        purpose: what the answer is for.
        shapes: (class, geometry) of each object in level-0 pixels. For tissue, valid polygons clipped to the region;
            for nuclei, whole outlines of nuclei whose centre lies in it, and a class is a known one, ``unknown`` or
            ``ignored``. Empty where the region holds nothing of interest.
        cost_labels: labels that it counts as: tiles, or nuclei.
        cost_minutes: annotator minutes.
    """

    region: Region
    purpose: Purpose
    shapes: tuple[tuple[str, BaseGeometry], ...] = field(default=())
    cost_labels: float = 0.0
    cost_minutes: float = 0.0
