# SPDX-License-Identifier: Apache-2.0
"""Annotator minutes: labels do not cost the same when each lies in another place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tral_monai.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AnnotationCost:
    """Minutes = (slides * per slide + regions * per region + tiles * per tile) / 60, all in seconds.

    The defaults are assumptions of this project, not measurements: time your own annotators, and until then report the
    `range` next to every result in minutes. A class request lets the annotator outline one region that gives many tiles
    (few regions); specific tiles scattered over slides cost one region each.

    Args:
        seconds_per_slide: Open a slide and find one's way.
        seconds_per_region: Move to a region, look at its surroundings, decide and outline.
        seconds_per_tile: Confirm one tile within a region that is in view.

    Raises:
        ConfigError: A time is negative or not finite.
    """

    seconds_per_slide: float = 30.0
    seconds_per_region: float = 10.0
    seconds_per_tile: float = 2.0

    def __post_init__(self) -> None:
        for name in ("seconds_per_slide", "seconds_per_region", "seconds_per_tile"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"{name} must be a finite number of seconds >= 0, but is {value!r}.")

    def minutes(self, tiles: int, *, regions: int | None = None, slides: int = 0) -> float:
        """Minutes for a query.

        Args:
            tiles: Tiles labelled.
            regions: Separate regions they lie in; None means that every tile is a region of its own.
            slides: Slides opened.

        Raises:
            ConfigError: A count is negative, or there are more regions than tiles.
        """
        places = tiles if regions is None else regions
        if min(tiles, places, slides) < 0 or places > tiles:
            raise ConfigError(
                f"Counts must be >= 0 with no more regions than tiles, but are {tiles} tiles, {places} regions, "
                f"{slides} slides."
            )
        seconds = slides * self.seconds_per_slide + places * self.seconds_per_region + tiles * self.seconds_per_tile
        return seconds / 60.0

    def range(
        self, tiles: int, *, regions: int | None = None, slides: int = 0, factor: float = 2.0
    ) -> tuple[float, float]:
        """Least and most minutes when each of the three times may be wrong by `factor` either way.

        That is `minutes` divided and multiplied by `factor`, because minutes are linear in the times. Whether one
        strategy beats another can still turn on a single time: compare with objects that change one of them.

        Raises:
            ConfigError: `factor` is below 1, or a count is wrong.
        """
        if not factor >= 1:
            raise ConfigError(f"factor must be at least 1, but is {factor}.")
        middle = self.minutes(tiles, regions=regions, slides=slides)
        return middle / factor, middle * factor


def annotation_minutes(
    n_tiles: int, *, regions: int | None = None, slides: int = 0, cost: AnnotationCost | None = None
) -> float:
    """Annotator minutes for a query with the default times or `cost`; see `AnnotationCost.minutes`."""
    return (cost or AnnotationCost()).minutes(n_tiles, regions=regions, slides=slides)
