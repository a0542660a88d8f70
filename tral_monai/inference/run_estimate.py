# SPDX-License-Identifier: Apache-2.0
"""How long a run over many slides will still take, from the tiles that are done and the slides that are left."""

from __future__ import annotations

import time
from collections.abc import Callable


class RunEstimate:
    """Keeps count of slides and tiles.

    Slides that are left are taken to have as many tiles as those so far, and a tile to take as long, opening, mask and
    writing included. Slides that were finished earlier take no time and say nothing about the others.

    Args:
        slides: in the run.
        clock: seconds from any point on.
    """

    def __init__(self, slides: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.slides = slides
        self.slides_done = 0
        self._clock = clock
        self._worked_slides = 0  # and what they took
        self._worked_tiles = 0
        self._worked_seconds = 0.0
        self._current = (0, 0)  # tiles done and in all, of the slide that is worked on
        self._since = self._tiles_since = clock()

    def slide_started(self) -> None:
        """A slide is opened."""
        self._current = (0, 0)
        self._since = self._tiles_since = self._clock()

    def tiles_done(self, done: int, total: int) -> None:
        """So many tiles of the current slide are done, of so many."""
        if done == 0:
            self._tiles_since = self._clock()
        self._current = (done, total)

    def slide_done(self, *, worked: bool) -> None:
        """The current slide is over; ``worked`` is false where it was finished earlier."""
        self.slides_done += 1
        if worked:
            self._worked_slides += 1
            self._worked_tiles += self._current[0]
            self._worked_seconds += self._clock() - self._since
        self._current = (0, 0)
        self._since = self._tiles_since = self._clock()

    @property
    def tiles_per_second(self) -> float | None:
        """Of the current slide, once some tiles are done."""
        seconds = self._clock() - self._tiles_since
        return self._current[0] / seconds if self._current[0] and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """For the whole run; None as long as nothing is known, before the first tiles."""
        done, total = self._current
        seconds = self._worked_seconds + (self._clock() - self._since if total else 0.0)
        tiles, slides = self._worked_tiles + done, self._worked_slides + bool(total)
        left = self.slides - self.slides_done
        if tiles:
            per_slide = (self._worked_tiles + total) / slides
            tiles_left = total - done + per_slide * (left - bool(total))
            return tiles_left * seconds / tiles
        # Slides without tissue have no tiles, but take time too.
        return seconds / slides * left if slides and not total else None


def in_words(seconds: float) -> str:
    """A duration as people say it, for a log: ``45 s``, ``12 min``, ``3 h 05 min``, ``2 d 4 h``.

    Args:
        seconds: 0 or more.
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
