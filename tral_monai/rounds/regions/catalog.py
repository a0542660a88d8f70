# SPDX-License-Identifier: Apache-2.0
"""The slides of a studies folder: names, patients, resolution, and which are held out to measure models by."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from tral_monai.annotations.nuclei.files import IMAGE_SUFFIXES, tcga_origin
from tral_monai.annotations.text_file import read_text
from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError, MissingMppError, PatientOverlapError, UnknownItemError
from tral_monai.rounds.regions.region import Purpose, Region
from tral_monai.slides import Slide, open_slide

Axis = Literal["x", "y"]
Side = Literal["train", "val", "split"]
"""Where a slide's regions go. ``split`` divides one slide along its longer side: for a site with a single slide."""

TABLE_NAME = "slides.csv"
_COLUMNS = ("slide", "patient", "split", "mpp", "areas")
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


class _Record(TypedDict):
    """What is remembered: the side of each slide, and where a single slide is divided."""

    sides: dict[str, Side]
    cuts: dict[str, tuple[Axis, int]]


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
        self.studies, self._record = Path(studies), Path(record)
        self._table = Path(table) if table is not None else None
        self._mpp, self._val_fraction, self._seed = mpp, val_fraction, seed
        self._lock = threading.RLock()

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
        names = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
        stems = {slide_id(name) for name in names}
        stems |= {_bare(stem) for stem in stems}
        names = [name for name in names if not _is_patch(slide_id(name), stems)]
        table = self._read_table(names)
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
                self._file(own["areas"]) if own.get("areas") else None,
                self._mpp,
            )
        _refuse_overlap(entries.values())
        return entries

    def find(self, image: str) -> SlideEntry:
        """A slide by what a client calls it: its id, its file name, or the id with an inner suffix (``.ome``) left out.

        Raises:
            UnknownItemError: there is none; the message names some that there are.
        """
        entries = self.entries()
        if image in entries:
            return entries[image]
        for matches in (
            [e for e in entries.values() if e.id == image],
            [e for e in entries.values() if _bare(e.id) == image],
        ):
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
        entries = self.entries()
        own = slide_id(name)
        return name if own in entries or any(e.id == own and e.name != name for e in entries.values()) else own

    def patch_origin(self, image: str) -> Region | None:
        """The region that an uploaded picture shows, by its name; None for a slide.

        Raises:
            UnknownItemError: it is named like such a picture, but its slide is not there.
        """
        match = _PATCH.match(image)
        if match is None or image in {entry.id for entry in self.entries().values()}:
            return None
        entry = self.find(match["slide"])
        return Region(entry.name, int(match["x"]), int(match["y"]), int(match["w"]), int(match["h"]))

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
        with self._lock:
            entries = list(self.entries().values())
            record = self._load()
            sides: dict[str, Side] = record["sides"]
            known = dict(sides)
            for entry in entries:
                if entry.split is not None:
                    sides[entry.name] = entry.split
            free = [entry for entry in entries if entry.name not in sides]
            if free and len(entries) == 1:
                sides[free[0].name] = "split" if self._val_fraction > 0 else "train"
            elif free:
                self._divide(entries, free, sides)
            if sides != known:
                self._save(record)
            return {entry.name: sides[entry.name] for entry in entries}

    def cut(self, name: str, axis: Axis, at_level0: int) -> None:
        """Divide a slide of side ``split``: regions that begin at or beyond a place are held out.

        The first cut of a slide holds.
        """
        with self._lock:
            record = self._load()
            if name not in record["cuts"]:
                record["cuts"][name] = (axis, int(at_level0))
                self._save(record)

    def cut_of(self, name: str) -> tuple[Axis, int] | None:
        """Where a slide is divided: the axis and the place in level-0 pixels; None where it is not (yet)."""
        axis_at = self._load()["cuts"].get(name)
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
        axis, at = self._load()["cuts"][region.slide]
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

    def _load(self) -> _Record:
        record: _Record = {"sides": {}, "cuts": {}}
        if self._record.is_file():
            try:
                record.update(json.loads(self._record.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ConfigError(
                    f"{self._record} is damaged ({error}); restore it: it says which slides are held out, and a new "
                    "draw would train on some of them"
                ) from error
        return record

    def _save(self, record: _Record) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._record) as temporary:
            temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")

    # -- the slides table ---------------------------------------------------------------------------------------------

    def _read_table(self, names: list[str]) -> dict[str, dict[str, str]]:
        file = self._table or self.studies / TABLE_NAME
        if self._table is None and not file.is_file():
            return {}
        reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
        columns = [column.strip().lower() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        strangers = [column for column in columns if column not in _COLUMNS]
        if "slide" not in columns or strangers:
            raise ConfigError(f"{file.name}: expected the column slide and any of {_COLUMNS[1:]}, but found {columns}")
        by_id = {slide_id(name): name for name in names}
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            cells = {key: (value or "").strip() for key, value in row.items() if key}
            name = cells["slide"] if cells["slide"] in names else by_id.get(cells["slide"])
            where = f"{file.name}, line {reader.line_num}"
            if cells.get("split") not in (None, "", "train", "val"):
                raise ConfigError(f"{where}: split must be train, val or empty, but is '{cells['split']}'")
            if cells.get("mpp") and not _is_mpp(cells["mpp"]):
                raise ConfigError(f"{where}: mpp must be micrometres per pixel, such as 0.25, but is '{cells['mpp']}'")
            if cells.get("areas") and not self._file(cells["areas"]).is_file():
                raise ConfigError(f"{where}: there is no annotation file '{cells['areas']}' of the areas")
            if name is not None:  # a slide that is not there (yet) does no harm
                rows[name] = cells
        return rows

    def _file(self, cell: str) -> Path:
        base = (self._table or self.studies / TABLE_NAME).absolute().parent
        return base / cell


def slide_id(name: str) -> str:
    """What clients call a file: its name without the last suffix (``a.b.svs`` -> ``a.b``), as QuPath does."""
    return Path(name).stem


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


def _bare(identifier: str) -> str:
    return identifier.removesuffix(".ome")


def _is_patch(stem: str, stems: set[str]) -> bool:
    match = _PATCH.match(stem)
    return match is not None and match["slide"] in stems


def _is_mpp(text: str) -> bool:
    try:
        return 0.01 <= float(text) <= 100 and math.isfinite(float(text))
    except ValueError:
        return False
