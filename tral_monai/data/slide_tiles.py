# SPDX-License-Identifier: Apache-2.0
"""The tiles of one slide: its outlines, classes and tissue to rows of the triplet index."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from tral_monai.annotations.class_map import ClassMap
from tral_monai.annotations.files import read_annotations
from tral_monai.annotations.geometry import polygonal
from tral_monai.annotations.model import Annotation, ShapeProblem
from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.annotations.tile_labels import Area, label_tiles
from tral_monai.data.cohort import CohortRow
from tral_monai.data.index_report import IndexReport
from tral_monai.slides import Slide, TissueMask, open_slide, tissue_mask

logger = logging.getLogger(__name__)

_PAPER_MASK_MPP = 4.0  # 2.5x, where the paper looks for tissue


class SlideTiles:
    """Finds the tiles of one slide after the other, and gathers what is worth reporting.

    Args:
        class_map: class names to classes.
        coverage: least part of a tile, exclusive.
        stride_px: distance of neighbouring tiles at 40x, in pixels.
        tissue_method: ``auto``, ``paper`` or None.
        report: where findings go.
    """

    def __init__(
        self, class_map: ClassMap, coverage: float, stride_px: int, tissue_method: str | None, report: IndexReport
    ) -> None:
        self.class_map = class_map
        self.coverage = coverage
        self.stride_px = stride_px
        self.tissue_method = tissue_method
        self.report = report
        self._names: Counter[str | None] = Counter()
        self._unknown: dict[str | None, None] = {}  # a set that keeps its order

    def find(self, path: Path, rows: Sequence[CohortRow]) -> pd.DataFrame:
        """All tiles of one slide.

        Args:
            path: the slide.
            rows: its rows of the cohort.

        Returns:
            The columns of a triplet index except ``id``.

        Raises:
            SlideError: the slide cannot be used.
            AnnotationError: an annotation file cannot be used.
        """
        with open_slide(path, mpp=rows[0].mpp) as slide:
            grid = TileGrid(slide.dimensions, slide.mpp, self.stride_px)
            # Annotations first: they are what most often is wrong, and the mask takes longest.
            read: dict[Path, list[Annotation]] = {}
            for row in rows:
                if row.annotations is not None and row.annotations not in read:
                    problems: list[ShapeProblem] = []
                    read[row.annotations] = read_annotations(row.annotations, problems=problems)
                    self.report.add_shapes(problems)
            areas = [self._areas(row, read[row.annotations] if row.annotations else None, slide) for row in rows]
            tissue = self._tissue(slide)
            return _one_row_per_tile(
                [self._tiles(row, of_row, slide, grid, tissue) for row, of_row in zip(rows, areas, strict=True)],
                self.report,
            )

    def raise_unknown(self) -> None:
        """Raise for the names that no rule fits, if there were any."""
        names = self._names
        self.report.names = {"(unclassified)" if n is None else n: count for n, count in names.items()}
        if self._unknown:
            raise self.class_map.unknown_error(self._unknown, seen=names)
        self.report.dropped_names = [name for name in names if name is not None and self.class_map.map(name) is None]

    def _areas(self, row: CohortRow, annotations: list[Annotation] | None, slide: Slide) -> dict[str, list[Area]]:
        if row.annotations is None or annotations is None:
            return {"": [shapely.box(0, 0, *slide.dimensions)]}
        problems: list[ShapeProblem] = []
        areas: dict[str, list[Area]] = {}
        for index, annotation in enumerate(annotations):
            if row.part not in (None, annotation.name):
                continue
            name = annotation.class_name
            self._names[name] += 1
            if self.class_map.is_unknown(name):
                self._unknown[name] = None
                continue
            target = self.class_map.map(name)
            if target is None:
                continue
            area = polygonal(annotation, file=row.annotations.name, index=index, problems=problems)
            if area is not None:
                areas.setdefault(target, []).append(area)
                self.report.add_area(row.split, target, area.area * slide.mpp_xy[0] * slide.mpp_xy[1] / 1e6)
        self.report.add_shapes(problems)
        if row.part is not None and all(annotation.name != row.part for annotation in annotations):
            found = ", ".join(sorted({repr(a.name) for a in annotations if a.name})) or "none"
            self._note(f"{slide.name}: no annotation has the name '{row.part}' (column part); names there: {found}")
        return areas

    def _tissue(self, slide: Slide) -> TissueMask | None:
        if self.tissue_method is None:
            return None
        if self.tissue_method == "paper":
            return tissue_mask(slide, method="paper", mpp=_PAPER_MASK_MPP)
        return tissue_mask(slide)

    def _tiles(
        self, row: CohortRow, areas: dict[str, list[Area]], slide: Slide, grid: TileGrid, tissue: TissueMask | None
    ) -> pd.DataFrame:
        classes, carve_out = (("",), ()) if "" in areas else (self.class_map.classes, self.class_map.carve_out)
        labels = label_tiles(areas, grid, classes=classes, coverage=self.coverage, carve_out=carve_out, tissue=tissue)
        self.report.contested_tiles += labels.contested
        by_tissue = " by tissue" if tissue else ""
        if not labels.rows.size and areas:
            bounds = shapely.total_bounds(np.array([area for of_class in areas.values() for area in of_class]))
            x0, y0, x1, y1 = (round(value) for value in bounds)
            self._note(
                f"{slide.name} ({row.split}): no tile is covered enough{by_tissue}; outlines reach "
                f"from ({x0}, {y0}) to ({x1}, {y1}) on a slide of {slide.dimensions[0]} x {slide.dimensions[1]} pixels"
            )
        centres = grid.centres(labels.rows, labels.columns)
        return pd.DataFrame(
            {
                "slide": slide.name,
                "slide_path": str(slide.path.absolute()),
                "slide_mpp": slide.mpp,
                "x_level0": centres[:, 0],
                "y_level0": centres[:, 1],
                "class": labels.classes,
                "coverage": labels.coverage,
                "split": row.split,
                "patient": row.patient,
            }
        )

    def _note(self, text: str) -> None:
        self.report.notes.append(text)
        logger.warning("%s", text)


def _one_row_per_tile(tables: list[pd.DataFrame], report: IndexReport) -> pd.DataFrame:
    """Join the rows of one slide: a tile of two splits is left out, of two parts of one split the fuller one stays."""
    if len(tables) == 1:
        return tables[0]
    table = pd.concat([table for table in tables if len(table)] or tables[:1])
    place = ["x_level0", "y_level0"]
    conflict = table.groupby(place)["split"].transform("nunique") > 1
    report.split_conflict_tiles += len(table[conflict].drop_duplicates(place))
    table = table[~conflict].sort_values("coverage", ascending=False, kind="stable")
    return table.drop_duplicates(place)
