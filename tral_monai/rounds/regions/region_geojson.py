# SPDX-License-Identifier: Apache-2.0
"""A round's regions as QuPath GeoJSON, for viewers that no server talks to.

The way round: ``python -m tral_monai regions STUDIES --task tissue --output-dir DIR`` writes one ``<slide id>.geojson``
per slide; drag it onto the slide in QuPath; draw inside the rectangles; export all objects as GeoJSON under the same
name into ``<studies>/labels/final``. It is taken in at the next occasion.

A rectangle is there before anybody has looked at it, so it carries the metadata ``tral_monai: open``, which QuPath
keeps. A rectangle with this mark and nothing in it counts as not answered, until its class is changed to ``Empty`` or
its name to ``done`` (or anything that ends so): then it was looked at and holds nothing. A rectangle of class
``Region`` that somebody drew has no mark and counts as looked at. Rectangles are locked, so that they are not moved by
mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tral_monai.annotations.files import read_annotations
from tral_monai.annotations.geojson import write_geojson
from tral_monai.annotations.model import Annotation
from tral_monai.atomic_file import prepare_folder
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.region import AskedRegion
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.region_shapes import MARK, OPEN, REGION_CLASS
from tral_monai.rounds.regions.site import TaskSite

EXPORT_CLIENT = "export"
"""Who holds the regions that were exported."""
_COLOR = (0, 0, 180)  # QuPath's own of a region


def reserve_for_export(task: TaskSite, ledger: RegionLedger, round_: int, *, seconds: float) -> list[AskedRegion]:
    """Reserve every open region of a round for the export, so that no server hands it out meanwhile.

    Args:
        task: the task.
        ledger: its ledger.
        round_: the round.
        seconds: for how long.

    Returns:
        The regions that the export holds, those of an earlier export included, in the order of the query. Regions of
        slides that are gone are left out.
    """
    there = task.catalog.entries()
    gone = {asked.region.slide for asked in ledger.asked(round_)} - there.keys()
    while ledger.reserve_next(round_, EXPORT_CLIENT, seconds=seconds, without_slides=gone) is not None:
        pass
    return [
        asked
        for asked in ledger.asked(round_)
        if asked.reserved_by == EXPORT_CLIENT and not asked.answered and asked.region.slide not in gone
    ]


def region_annotation(asked: AskedRegion) -> Annotation:
    """The rectangle of a region as a locked annotation, with the reason why it was chosen."""
    wanted = f": {asked.class_asked}" if asked.class_asked else ""
    return Annotation(
        geometry=asked.region.polygon,
        class_name=REGION_CLASS,
        name=f"round {asked.round}, no. {asked.rank + 1}{wanted}",
        color=_COLOR,
        properties={
            "isLocked": True,
            # QuPath shows the description of an annotation below the list of its measurements.
            "metadata": {MARK: OPEN, "reason": asked.reason, "ANNOTATION_DESCRIPTION": asked.reason},
        },
    )


def write_regions(task: TaskSite, asked: Sequence[AskedRegion], folder: str | Path) -> list[Path]:
    """Write one GeoJSON per slide.

    Args:
        task: the task.
        asked: the regions.
        folder: where to; made where it does not exist.

    Returns:
        The files, in the order of their names.

    Raises:
        ConfigError: the folder cannot be written to, or a file there holds what somebody drew.
        AnnotationError: a file there cannot be read.
        OutputError: a file cannot be written.
    """
    target = prepare_folder(folder)
    listing = task.catalog.listing()
    of_file: dict[Path, list[Annotation]] = {}
    for one in asked:
        of_file.setdefault(target / f"{listing.client_id(one.region.slide)}.geojson", []).append(region_annotation(one))
    for path in of_file:
        if path.is_file() and not all(map(_is_untouched, read_annotations(path))):
            raise ConfigError(
                f"{path} holds what somebody drew, and is not written over; copy it to labels/final in the studies "
                "folder if it is finished, or choose another --output-dir"
            )
    for path, rectangles in of_file.items():
        write_geojson(path, rectangles)
    return sorted(of_file)


def _is_untouched(annotation: Annotation) -> bool:
    metadata = annotation.properties.get("metadata")
    is_marked = isinstance(metadata, dict) and metadata.get(MARK) == OPEN
    return is_marked and annotation.class_name == REGION_CLASS and not (annotation.name or "").lower().endswith("done")
