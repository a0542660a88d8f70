# SPDX-License-Identifier: Apache-2.0
"""The regions of each slide, found once and kept, or the reason why a slide cannot be used."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import AnnotationError, MissingMppError, SlideError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.regions.catalog import SlideEntry
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.slide_grid import COLUMNS, is_field, slide_regions
from tral_monai.rounds.regions.tissue_cache import cached_tissue
from tral_monai.slides.fingerprint import slide_fingerprint

logger = logging.getLogger(__name__)

CACHED_COLUMNS = {**COLUMNS, "id": "int64"}
"""Columns of a slide's table: those of its regions, and their ids, which cost more to compute than to read."""

_VERSION = 2  # raise it whenever the regions of a slide would change


class CandidateCache:
    """Tables of regions in a folder, by what a slide is called, what it holds and how large a region is.

    Beside the tables lies a note for each slide: the file's size and time when it was looked at, and the table that it
    led to or the reason why the slide cannot be used. A slide is looked at again once one of these changes.

    Args:
        folder: where tables and notes lie; made when the first is written.
        tissue_dir: where tissue masks are kept.
        region_um: side of a region in micrometres.
        seed: of the draw from slides with very many regions.
    """

    def __init__(self, folder: str | Path, tissue_dir: str | Path, *, region_um: float, seed: int = 0) -> None:
        self.folder, self._tissue_dir = Path(folder), Path(tissue_dir)
        self._region_um, self._seed = float(region_um), int(seed)

    def get(self, entry: SlideEntry) -> pd.DataFrame | None:
        """The regions of a slide (see :data:`CACHED_COLUMNS`), or None where it cannot be used.

        Raises:
            OutputError: the table cannot be written.
        """
        asked = self._asked(entry)
        note = self._note(entry)
        if note is not None and note.get("asked") == asked:
            if note["problem"] is not None:
                return None
            table = _read(self.folder / note["table"])
            if table is not None:
                return table
        try:
            name, table = self._find(entry)
        except (SlideError, AnnotationError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, SlideError) and entry.path.is_file():
                raise  # the cache itself cannot be written
            problem = str(error).removeprefix(f"{entry.name}: ")
            if isinstance(error, MissingMppError):
                problem = (
                    "the file records no micrometres per pixel; give the scanner's value, such as 0.25 for a 40x scan, "
                    "in the column mpp of slides.csv in the studies folder, or for all such files with --conf mpp 0.25"
                )
            logger.warning("%s is left out: %s", entry.name, problem)
            self._write_note(entry, {"asked": asked, "table": None, "problem": problem})
            return None
        self._write_note(entry, {"asked": asked, "table": name, "problem": None})
        return table

    def problem(self, entry: SlideEntry) -> str | None:
        """Why a slide was found to be of no use; None where it is of use, or was not looked at yet."""
        note = self._note(entry)
        return None if note is None or note.get("asked") != self._asked(entry) else note["problem"]

    def _find(self, entry: SlideEntry) -> tuple[str, pd.DataFrame]:
        with entry.open() as slide:
            areas = file_sha256(entry.areas) if entry.areas is not None else ""
            content = (slide_fingerprint(entry.path), f"{slide.mpp:.6f}", f"{self._region_um:g}", areas, self._seed)
            key = hashlib.sha256("\0".join(map(str, (_VERSION, entry.name, *content))).encode()).hexdigest()[:24]
            file = self.folder / f"{key}.parquet"
            table = _read(file)
            if table is None:
                tissue = None if is_field(slide) else cached_tissue(slide, self._tissue_dir)
                generator = np.random.default_rng([self._seed, int(key[:8], 16)])
                table = slide_regions(slide, self._region_um, tissue, entry.areas, generator)
                table["id"] = region_ids(entry.name, table)
                self.folder.mkdir(parents=True, exist_ok=True)
                with atomic_path(file) as temporary:
                    table.to_parquet(temporary, index=False)
                logger.info("%s: %d regions of %g um", entry.name, len(table), self._region_um)
        return file.name, table

    def _asked(self, entry: SlideEntry) -> list[Any]:
        """What decides whether a note still holds; cheap to find."""
        mpps = [entry.mpp, entry.fallback_mpp]
        return [_VERSION, _stamp(entry.path), _stamp(entry.areas), *mpps, self._region_um, self._seed]

    def _note_file(self, entry: SlideEntry) -> Path:
        return self.folder / f"{hashlib.sha256(entry.name.encode()).hexdigest()[:24]}.json"

    def _note(self, entry: SlideEntry) -> dict[str, Any] | None:
        try:
            note = json.loads(self._note_file(entry).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or a damaged one: the slide is looked at
            return None
        return note if isinstance(note, dict) and {"asked", "table", "problem"} <= set(note) else None

    def _write_note(self, entry: SlideEntry, note: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._note_file(entry)) as temporary:
            temporary.write_text(json.dumps({"slide": entry.name, **note}), encoding="utf-8")


def region_ids(slide: str, table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The id of each region of a slide: (n,) int64.

    Args:
        slide: file name of the slide.
        table: with ``x_level0, y_level0, width_level0, height_level0``.
    """
    boxes = table[["x_level0", "y_level0", "width_level0", "height_level0"]].to_numpy(np.int64).tolist()
    return np.array([Region(slide, *box).id for box in boxes], dtype=np.int64)


def _stamp(path: Path | None) -> list[int] | None:
    if path is None or not path.exists():
        return None
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _read(file: Path) -> pd.DataFrame | None:
    if not file.is_file():
        return None
    try:
        return pd.read_parquet(file).astype(CACHED_COLUMNS)
    except (OSError, ValueError, KeyError):  # damaged (ArrowInvalid is a ValueError): found anew
        return None
