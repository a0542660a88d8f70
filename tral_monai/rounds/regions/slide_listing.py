# SPDX-License-Identifier: Apache-2.0
"""The slides of a studies folder at one moment, and the names by which clients know them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tral_monai.errors import MissingMppError, UnknownItemError
from tral_monai.rounds.regions.region import Purpose, Region
from tral_monai.slides import Slide, open_slide

_PATCH = re.compile(r"^(?P<slide>.+)-patch-(?P<x>\d+)_(?P<y>\d+)_(?P<w>\d+)_(?P<h>\d+)$")


@dataclass(frozen=True)
class SlideEntry:
    """One slide of the studies folder.

    Attributes:
        path: the file.
        id: what clients call it: the file name without its suffix.
        patient: the patient's name, or the slide's own where nobody said.
        split: ``train`` or ``val`` where the slides table says, else None.
        mpp: micrometres per level-0 pixel to use whatever the file records, from the slides table; None takes what the
            file records.
        areas: annotation file of the areas that may be asked for, or None.
        fallback_mpp: micrometres per level-0 pixel to use where neither says it, or None.
    """

    path: Path
    id: str
    patient: str
    split: Purpose | None = None
    mpp: float | None = None
    areas: Path | None = None
    fallback_mpp: float | None = None

    def open(self) -> Slide:
        """The slide, opened for the caller, who closes it.

        Raises:
            SlideError: it cannot be opened, or has no mpp.
        """
        try:
            return open_slide(self.path, mpp=self.mpp)
        except MissingMppError:
            if self.fallback_mpp is None:
                raise
        return open_slide(self.path, mpp=self.fallback_mpp)

    @property
    def name(self) -> str:
        """File name: what ledgers and outputs call the slide."""
        return self.path.name


class SlideListing:
    """Slides with look-ups by every name that a client may use. Making one costs a pass over the entries.

    Args:
        entries: the slides by file name.
    """

    def __init__(self, entries: Mapping[str, SlideEntry]) -> None:
        self.entries = entries

    def find(self, image: str) -> SlideEntry:
        """A slide by what a client calls it: its id, its file name, or the id with an inner suffix (``.ome``) left out.

        Raises:
            UnknownItemError: there is none; the message names some that there are.
        """
        entries = self.entries
        if image in entries:
            return entries[image]
        for matches in (self._of_id.get(image, ()), self._of_bare_id.get(image, ())):
            if len(matches) == 1:
                return matches[0]
            if matches:
                names = ", ".join(entry.name for entry in matches)
                raise UnknownItemError(f"'{image}' may be any of {names}; rename one, or ask by the whole file name")
        known = ", ".join(entry.id for entry in list(entries.values())[:10]) or "none"
        more = f" and {len(entries) - 10} more" if len(entries) > 10 else ""
        raise UnknownItemError(
            f"there is no slide '{image}' in the studies folder (slides there: {known}{more}); put the file there, "
            "under the same name that the viewer has it"
        )

    def client_id(self, name: str) -> str:
        """What clients call a slide, given its file name: its id, or the file name where the id may mean another one.

        Slides that are not there (any more) are called by their id.
        """
        own = slide_id(name)
        return name if own in self.entries or any(e.name != name for e in self._of_id.get(own, ())) else own

    def patch_origin(self, image: str) -> Region | None:
        """The region that an uploaded picture shows, by its name; None for a slide.

        Raises:
            UnknownItemError: it is named like such a picture, but its slide is not there.
        """
        match = _PATCH.match(image)
        if match is None or image in self._of_id:
            return None
        entry = self.find(match["slide"])
        return Region(entry.name, int(match["x"]), int(match["y"]), int(match["w"]), int(match["h"]))

    @cached_property
    def _of_id(self) -> dict[str, list[SlideEntry]]:
        return _grouped(self.entries, lambda entry: entry.id)

    @cached_property
    def _of_bare_id(self) -> dict[str, list[SlideEntry]]:
        return _grouped(self.entries, lambda entry: _bare(entry.id))


def slide_id(name: str) -> str:
    """What clients call a file: its name without the last suffix (``a.b.svs`` -> ``a.b``), as QuPath does."""
    return Path(name).stem


def without_patches(names: Sequence[str]) -> list[str]:
    """File names of images, without pictures of regions (``<id>-patch-<x>_<y>_<w>_<h>``) of any of them."""
    ids = {slide_id(name) for name in names}
    ids |= {_bare(one) for one in ids}
    matches = {name: _PATCH.match(slide_id(name)) for name in names}
    return [name for name, match in matches.items() if match is None or match["slide"] not in ids]


def _bare(identifier: str) -> str:
    return identifier.removesuffix(".ome")


def _grouped(entries: Mapping[str, SlideEntry], key: Callable[[SlideEntry], str]) -> dict[str, list[SlideEntry]]:
    groups: dict[str, list[SlideEntry]] = {}
    for entry in entries.values():
        groups.setdefault(key(entry), []).append(entry)
    return groups
