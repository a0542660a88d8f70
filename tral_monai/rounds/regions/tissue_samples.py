# SPDX-License-Identifier: Apache-2.0
"""What people drew in regions, as labelled tiles: the triplet index that a tissue classifier is trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

import numpy as np
import pandas as pd
import shapely

from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.annotations.tile_labels import Area, label_tiles
from tral_monai.data.triplet_index import COLUMNS
from tral_monai.errors import ConfigError, SlideError, UnknownItemError
from tral_monai.rounds.regions.region import RegionAnswer
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.slide_grid import is_field
from tral_monai.rounds.regions.tissue_cache import cached_tissue
from tral_monai.slides import Slide, TissueMask

logger = logging.getLogger(__name__)

COVERAGE = 0.7
"""Part of a tile that its class must cover, exclusive (TRI-AL)."""

TISSUE_COLUMNS = {**COLUMNS, "region": "int64"}
"""Columns of the table and their types: those of a triplet index, and the id of the answered region."""


def tissue_samples(task: TaskSite) -> pd.DataFrame:
    """Labelled tiles of all answered regions.

    Tiles follow the slide's grid; a tile is taken if one class covers more than 0.7 of it, on tissue. With the setting
    ``negative_class``, what is left of a region once everything drawn in it is taken away is of that class. A tile that
    two answers of one purpose cover counts once, by the answer that covers more of it; one that is both trained on and
    held out counts for neither. Regions of slides that are gone or cannot be read are left out with a warning; their
    answers stay in the ledger, and count again once the slide is back.

    Args:
        task: the tissue task of a site.

    Returns:
        One row per tile with :data:`TISSUE_COLUMNS`, sorted by slide, row and column; ``split`` is ``train`` or
        ``val``.

    Raises:
        ConfigError: ``negative_class`` is none of the classes.
    """
    negative = task.settings.negative_class
    if negative is not None and negative not in task.classes:
        raise ConfigError(
            f"{task.name}_negative_class must be one of the classes {list(task.classes)}, but is '{negative}'"
        )
    with task.ledger() as ledger:
        answers = sorted(ledger.answers(), key=lambda answer: (answer.region.slide, answer.region.id))
    tables: list[pd.DataFrame] = []
    for name, group in groupby(answers, key=attrgetter("region.slide")):
        of_slide = list(group)
        try:
            with task.catalog.open(name) as slide:
                patient = task.catalog.find(name).patient
                tissue = None if is_field(slide) else cached_tissue(slide, task.folder / "tissue")
                table = _tiles_of_slide(task, of_slide, slide, tissue)
        except (SlideError, UnknownItemError, OSError) as error:
            logger.warning("%d answered regions of %s are left out: %s", len(of_slide), name, error)
            continue
        tables.append(table.assign(patient=patient))
    if not sum(map(len, tables)):
        return pd.DataFrame({column: [] for column in TISSUE_COLUMNS}).astype(TISSUE_COLUMNS)
    found = _one_row_per_tile(pd.concat([table for table in tables if len(table)]))
    found = found.sort_values(["slide", "y_level0", "x_level0"], kind="stable", ignore_index=True)
    found.insert(0, "id", np.arange(len(found), dtype=np.int64))
    return found.astype(TISSUE_COLUMNS)[list(TISSUE_COLUMNS)]


def _tiles_of_slide(
    task: TaskSite, answers: Sequence[RegionAnswer], slide: Slide, tissue: TissueMask | None
) -> pd.DataFrame:
    grid = TileGrid(slide.dimensions, slide.mpp)
    tables = []
    for answer in answers:
        found = label_tiles(
            _areas(answer, task.settings.negative_class),
            grid,
            classes=task.classes,
            coverage=COVERAGE,
            carve_out=task.class_map.carve_out,
            tissue=tissue,
        )
        centres = grid.centres(found.rows, found.columns)
        tables.append(
            pd.DataFrame(
                {
                    "slide": slide.name,
                    "slide_path": str(slide.path.absolute()),
                    "slide_mpp": slide.mpp,
                    "x_level0": centres[:, 0],
                    "y_level0": centres[:, 1],
                    "class": found.classes,
                    "coverage": found.coverage,
                    "split": answer.purpose,
                    "region": answer.region.id,
                }
            )
        )
    return pd.concat(tables)


def _areas(answer: RegionAnswer, negative: str | None) -> dict[str, list[Area]]:
    areas: dict[str, list[Area]] = {}
    for name, geometry in answer.shapes:
        if isinstance(geometry, (shapely.Polygon, shapely.MultiPolygon)):
            areas.setdefault(name, []).append(geometry)
    if negative is not None:
        drawn = shapely.unary_union([geometry for _, geometry in answer.shapes])
        rest = answer.region.polygon.difference(drawn)
        parts = [part for part in shapely.get_parts(rest) if isinstance(part, shapely.Polygon)]
        areas.setdefault(negative, []).extend(parts)
    return {name: polygons for name, polygons in areas.items() if polygons}


def _one_row_per_tile(table: pd.DataFrame) -> pd.DataFrame:
    place = ["slide", "x_level0", "y_level0"]
    conflict = table.groupby(place)["split"].transform("nunique") > 1
    if conflict.any():
        logger.warning(
            "%d tiles lie in a region to train on and in a held-out one, and count for neither",
            len(table[conflict].drop_duplicates(place)),
        )
    kept = table[~conflict].sort_values(["coverage", "region"], ascending=[False, True], kind="stable")
    return kept.drop_duplicates(place)
