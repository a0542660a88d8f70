# SPDX-License-Identifier: Apache-2.0
"""The slides of a studies folder: names, patients, resolution, and which are held out to measure models by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from tral_monai.annotations.nuclei.files import IMAGE_SUFFIXES, tcga_origin
from tral_monai.errors import ConfigError, PatientOverlapError, UnknownItemError
from tral_monai.rounds.regions.region import Purpose, Region
from tral_monai.rounds.regions.side_record import Axis, Side, SideRecord
from tral_monai.rounds.regions.slide_listing import SlideEntry, SlideListing, slide_id, without_patches
from tral_monai.rounds.regions.slides_table import path_beside, read_slides_table
from tral_monai.slides import Slide

__all__ = ["TABLE_NAME", "Axis", "Side", "SlideCatalog", "SlideEntry", "SlideListing", "slide_id"]

TABLE_NAME = "slides.csv"


class SlideCatalog:
    """Lists the slides that lie directly in a folder, and remembers the side of each.

    Pictures of regions that QuPath uploads (``<slide>-patch-<x>_<y>_<w>_<h>.png``) are not slides.

    Args:
        studies: the folder. It is listed anew at every call, so that slides may come and go.
        record: JSON file in which sides are kept once they are given.
        table: CSV with ``slide`` and any of ``patient, split, mpp, areas``; None takes ``slides.csv`` in the folder.
        mpp: micrometres per level-0 pixel of slides and images that record none, and that the table does not name.
        val_fraction: part of the patients that is held out, at least one where there are two.
        seed: of the draw.
    """

    def __init__(
        self,
        studies: str | Path,
        record: str | Path,
        *,
        table: str | Path | None = None,
        mpp: float | None = None,
        val_fraction: float = 0.25,
        seed: int = 0,
    ) -> None:
        self.studies, self._record = Path(studies), SideRecord(Path(record))
        self._table = Path(table) if table is not None else None
        self._mpp, self._val_fraction, self._seed = mpp, val_fraction, seed

    def entries(self) -> dict[str, SlideEntry]:
        """The slides by file name, in alphabetical order.

        Raises:
            ConfigError: the slides table is wrong; the message names its line.
            PatientOverlapError: the table puts slides of one patient on both sides.
        """
        try:
            names = sorted(entry.name for entry in os.scandir(self.studies) if entry.is_file())
        except OSError as error:
            raise ConfigError(f"the studies folder {self.studies} cannot be read ({error.strerror})") from error
        images = (name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."))
        names = without_patches(list(images))
        file = self._table or self.studies / TABLE_NAME
        table = read_slides_table(file, names) if self._table is not None or file.is_file() else {}
        entries = {}
        for name in names:
            own = table.get(name, {})
            patient = own.get("patient") or tcga_origin(name)[0] or slide_id(name)
            entries[name] = SlideEntry(
                self.studies / name,
                slide_id(name),
                patient,
                own.get("split") or None,  # type: ignore[arg-type]
                float(own["mpp"]) if own.get("mpp") else None,
                path_beside(file, own["areas"]) if own.get("areas") else None,
                self._mpp,
            )
        _refuse_overlap(entries.values())
        return entries

    def listing(self) -> SlideListing:
        """The slides that are there now, for many look-ups.

        Raises:
            ConfigError: the slides table is wrong.
            PatientOverlapError: the table puts slides of one patient on both sides.
        """
        return SlideListing(self.entries())

    def find(self, image: str) -> SlideEntry:
        """A slide by what a client calls it; see :meth:`SlideListing.find`.

        Raises:
            UnknownItemError: there is none; the message names some that there are.
        """
        return self.listing().find(image)

    def client_id(self, name: str) -> str:
        """What clients call a slide, given its file name; see :meth:`SlideListing.client_id`."""
        return self.listing().client_id(name)

    def patch_origin(self, image: str) -> Region | None:
        """The region that an uploaded picture shows, by its name; None for a slide.

        Raises:
            UnknownItemError: it is named like such a picture, but its slide is not there.
        """
        return self.listing().patch_origin(image)

    def open(self, name: str) -> Slide:
        """A slide by file name, opened for the caller, who closes it.

        Raises:
            UnknownItemError: it is not there (any more).
            SlideError: it cannot be opened, or has no mpp.
        """
        entry = self.entries().get(name)
        if entry is None:
            raise UnknownItemError(
                f"the slide '{name}' is no longer in the studies folder; put it back to go on with it"
            )
        return entry.open()

    # -- sides --------------------------------------------------------------------------------------------------------

    def sides(self) -> dict[str, Side]:
        """The side of every slide by file name; those without one get theirs, for good.

        A patient is on one side. A site's only slide is divided; so is none once there are more.
        """
        entries = list(self.entries().values())
        sides = self._record.load()["sides"]
        if not all(entry.name in sides and entry.split in (None, sides[entry.name]) for entry in entries):
            with self._record.change() as record:
                sides = record["sides"]
                sides.update({entry.name: entry.split for entry in entries if entry.split is not None})
                free = [entry for entry in entries if entry.name not in sides]
                if free and len(entries) == 1:
                    sides[free[0].name] = "split" if self._val_fraction > 0 else "train"
                elif free:
                    self._divide(entries, free, sides)
        return {entry.name: sides[entry.name] for entry in entries}

    def cut(self, name: str, axis: Axis, at_level0: int) -> None:
        """Divide a slide of side ``split``: regions that begin at or beyond a place are held out.

        The first cut of a slide holds.
        """
        with self._record.change() as record:
            record["cuts"].setdefault(name, (axis, int(at_level0)))

    def cut_of(self, name: str) -> tuple[Axis, int] | None:
        """Where a slide is divided: the axis and the place in level-0 pixels; None where it is not (yet)."""
        axis_at = self._record.load()["cuts"].get(name)
        return None if axis_at is None else (axis_at[0], int(axis_at[1]))

    def purpose(self, region: Region) -> Purpose | None:
        """What an answer in a region is for; None where it lies across a slide's cut.

        Raises:
            UnknownItemError: its slide is not there.
        """
        sides = self.sides()
        if region.slide not in sides:
            raise UnknownItemError(f"the slide '{region.slide}' is no longer in the studies folder")
        side = sides[region.slide]
        if side != "split":
            return side
        axis_at = self.cut_of(region.slide)
        if axis_at is None:
            return "train"
        axis, at = axis_at
        start = region.x_level0 if axis == "x" else region.y_level0
        end = start + (region.width_level0 if axis == "x" else region.height_level0)
        return "val" if start >= at else "train" if end <= at else None

    def parts(self, region: Region) -> list[tuple[Region, Purpose]]:
        """A region with what an answer in it is for; one that lies across its slide's cut, as its two sides.

        Raises:
            UnknownItemError: its slide is not there.
        """
        purpose = self.purpose(region)
        if purpose is not None:
            return [(region, purpose)]
        axis, at = self._record.load()["cuts"][region.slide]
        x, y, width, height = region.bbox_level0
        if axis == "x":
            first, second = (
                Region(region.slide, x, y, at - x, height),
                Region(region.slide, at, y, x + width - at, height),
            )
        else:
            first, second = (
                Region(region.slide, x, y, width, at - y),
                Region(region.slide, x, at, width, y + height - at),
            )
        return [(first, "train"), (second, "val")]

    def _divide(self, entries: list[SlideEntry], free: list[SlideEntry], sides: dict[str, Side]) -> None:
        of_patient: dict[str, Side] = {e.patient: sides[e.name] for e in entries if e.name in sides}
        patients = {entry.patient for entry in entries}
        wanted = (
            max(1, round(self._val_fraction * len(patients))) if self._val_fraction > 0 and len(patients) > 1 else 0
        )
        for patient in sorted({entry.patient for entry in free}, key=self._draw):
            if patient not in of_patient:
                held_out = sum(side == "val" for side in of_patient.values())
                of_patient[patient] = "val" if held_out < wanted else "train"
        for entry in free:
            side = of_patient[entry.patient]
            sides[entry.name] = "train" if side == "split" else side

    def _draw(self, patient: str) -> bytes:
        return hashlib.blake2b(f"{self._seed}\0{patient}".encode(), digest_size=8).digest()


def _refuse_overlap(entries: Iterable[SlideEntry]) -> None:
    side_of: dict[str, SlideEntry] = {}
    for entry in entries:
        if entry.split is not None:
            other = side_of.setdefault(entry.patient, entry)
            if other.split != entry.split:
                raise PatientOverlapError(
                    f"the slides table puts '{other.name}' into {other.split} and '{entry.name}' into {entry.split}, "
                    f"but both are of patient '{entry.patient}'; one patient stands on one side"
                )
