# SPDX-License-Identifier: Apache-2.0
"""What happened while a triplet index was made: slides left out, shapes repaired, names dropped."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pandas as pd

from tral_monai.annotations.model import ShapeProblem

_ATTRIBUTE = "report"


@dataclasses.dataclass
class IndexReport:
    """The summary of one index.

    Attributes:
        slides: slides in the cohort.
        skipped: slide name -> why nothing of it is in the index.
        notes: what is worth a look but stopped nothing, such as a part that no annotation has.
        shapes: shapes that were closed, repaired or dropped, in words.
        shape_counts: how many of each kind.
        names: class name in the annotations -> number of shapes; ``(unclassified)`` for those without.
        dropped_names: names among these that the class map leaves out.
        area_mm2: split -> class -> area of its outlines, each counted fully where they overlap.
        contested_tiles: tiles that two classes covered enough; the class with most of it got them.
        split_conflict_tiles: tiles left out because outlines of two splits claim them.
        triplets: rows of the index.
    """

    slides: int = 0
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    shapes: list[str] = dataclasses.field(default_factory=list)
    shape_counts: dict[str, int] = dataclasses.field(default_factory=dict)
    names: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped_names: list[str] = dataclasses.field(default_factory=list)
    area_mm2: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    contested_tiles: int = 0
    split_conflict_tiles: int = 0
    triplets: int = 0

    @classmethod
    def of(cls, table: pd.DataFrame) -> IndexReport:
        """The report that came with an index, empty where there is none.

        Args:
            table: from ``build_triplet_index`` or ``read_index``.
        """
        return cls(**table.attrs.get(_ATTRIBUTE, {}))

    def attach_to(self, table: pd.DataFrame) -> None:
        """Keep the report with an index, as plain values that a file can hold.

        Args:
            table: the index.
        """
        table.attrs[_ATTRIBUTE] = dataclasses.asdict(self)

    def add_shapes(self, problems: list[ShapeProblem]) -> None:
        """Count and keep problems of shapes.

        Args:
            problems: what reading and repair noted.
        """
        counts = Counter(self.shape_counts)
        counts.update(problem.kind for problem in problems)
        self.shape_counts = dict(counts)
        self.shapes += [str(problem) for problem in problems]

    def add_area(self, split: str, class_name: str, area_mm2: float) -> None:
        """Add the area of an outline.

        Args:
            split: its split.
            class_name: its class.
            area_mm2: its area.
        """
        of_split = self.area_mm2.setdefault(split, {})
        of_split[class_name] = of_split.get(class_name, 0.0) + area_mm2

    def lines(self) -> list[str]:
        """The problems in words, the worst first."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.shape_counts.items()))
        lines = [f"skipped {slide}: {reason}" for slide, reason in self.skipped.items()]
        if self.split_conflict_tiles:
            lines.append(f"{self.split_conflict_tiles} tiles left out: outlines of two splits claim them")
        return [*lines, *self.notes, *([f"shapes: {kinds}"] if kinds else []), *self.shapes]
