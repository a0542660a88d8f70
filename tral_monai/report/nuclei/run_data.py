# SPDX-License-Identifier: Apache-2.0
"""A nucleus run as the report sees it: what was asked for, what it cost, and how many nuclei were known ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tral_monai.data.nuclei.fov_table import read_fovs
from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.errors import CohortError, LedgerError
from tral_monai.report.run_data import TABLES, Curve, RunData

Axis = Literal["images", "boxes", "minutes"]
AXES: dict[Axis, str] = {"images": "images labelled", "boxes": "boxes drawn", "minutes": "annotator minutes"}
"""The three costs that a curve is drawn against, and how each is called."""
MAP50 = "map50"
CLASS_AGNOSTIC = "ap50_class_agnostic"
FP_ON_UNKNOWN = "fp_on_unknown"
BOX = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class QueryYield:
    """What the answers to one round's query hold (round 0: the labels to begin with).

    Attributes:
        images: fields of view that were answered.
        known: nuclei of known classes in them.
        unknown: nuclei that were ticked unknown.
        ignored: nuclei that count for nothing.
        boxes: boxes drawn, as paid for.
        minutes: annotator minutes, as paid for.
        per_class: nuclei of each known class, in the run's order.
    """

    images: int
    known: int
    unknown: int
    ignored: int
    boxes: float
    minutes: float
    per_class: tuple[int, ...]

    @property
    def purity(self) -> float:
        """Known nuclei among the known and unknown ones, 0..1; NaN without any nucleus."""
        return share(self.known, self.unknown)


@dataclass(frozen=True)
class PoolRate:
    """The fields that were still unlabelled when a query was made: images, and their known and unknown nuclei."""

    images: int
    known: int
    unknown: int

    @property
    def purity(self) -> float:
        """The purity that a query at random has on average; NaN without any nucleus."""
        return share(self.known, self.unknown)

    @property
    def known_per_image(self) -> float:
        """Mean known nuclei of a field; NaN for an empty pool."""
        return self.known / self.images if self.images else float("nan")


def share(part: float, rest: float) -> float:
    """``part / (part + rest)``, NaN for 0/0."""
    return part / (part + rest) if part + rest else float("nan")


class NucleusRunData(RunData):
    """The tables of a nucleus run's ledger and the figures derived from them.

    A sample is a field of view. Rounds count as in `RunData`: the model of round r was trained on the answers of rounds
    < r; the query made after training it, and the answers, carry round r. ``labels_before`` and its like count boxes
    drawn, which is what a label costs here.
    """

    table_names: ClassVar[tuple[str, ...]] = (*TABLES, "nuclei", "auxiliary_models")

    @property
    def unknown_classes(self) -> tuple[str, ...]:
        """Class names that the annotator ticks as unknown; empty where nobody listed them."""
        division = self.settings.get("open_set")
        listed = division.get("unknown") if isinstance(division, dict) else None
        return tuple(str(name) for name in self.settings.get("unknown_classes") or listed or ())

    @property
    def open_set(self) -> str:
        """Name of the open-set setting, such as ``5+2``; made of the counts where the known classes were listed."""
        recorded = isinstance(self.settings.get("index_settings"), dict)
        name = self._index_setting("open_set") if recorded else self.settings.get("open_set")
        return name if isinstance(name, str) and name else f"{len(self.classes)}+{len(self.unknown_classes)}"

    @property
    def fold(self) -> int | None:
        """The fold that was held out, or None where it was not recorded."""
        fold = self.settings.get("fold", self._index_setting("fold"))
        return int(fold) if isinstance(fold, int) else None

    @property
    def folds(self) -> int | None:
        """How many folds the data were divided into, or None where it was not recorded."""
        folds = self._index_setting("folds")
        return int(folds) if isinstance(folds, int) else None

    def _index_setting(self, name: str) -> object:
        settings = self.settings.get("index_settings")
        return settings.get(name) if isinstance(settings, dict) else None

    # -- costs --------------------------------------------------------------------------------------------------------

    def spent(self, axis: Axis, before_round: int | None = None) -> float:
        """What all answers cost, or those that the model of ``before_round`` was trained on."""
        rows = self.tables["labels"]
        if before_round is not None:
            rows = rows[rows["round"] < before_round]
        if axis == "images":
            return float(len(rows))
        return float(rows["cost_labels" if axis == "boxes" else "cost_minutes"].sum())

    def cost_curve(self, name: str, split: str, axis: Axis) -> Curve:
        """A metric of every evaluated round against one cost; the field ``labels`` holds that cost."""
        curve = self.curve(name, split)
        cost = np.array([self.spent(axis, int(round_)) for round_ in curve.rounds], dtype=np.float64)
        return curve._replace(labels=cost)

    # -- what the answers hold ----------------------------------------------------------------------------------------

    @cached_property
    def nuclei(self) -> pd.DataFrame:
        """Every annotated nucleus: columns of the ledger's ``nuclei`` and the round in which it was answered."""
        return self.tables["nuclei"].merge(self.tables["labels"][["sample_id", "round"]], on="sample_id", how="left")

    @cached_property
    def yields(self) -> dict[int, QueryYield]:
        """What each round's answers hold, by round; 0 is the labels to begin with."""
        labels = self.tables["labels"]
        result = {}
        for round_ in sorted(int(value) for value in labels["round"].unique()):
            own = labels[labels["round"] == round_]
            answers = self.nuclei.loc[self.nuclei["round"] == round_, "answer"].value_counts()
            per_class = tuple(int(answers.get(name, 0)) for name in self.classes)
            result[round_] = QueryYield(
                images=len(own),
                known=sum(per_class),
                unknown=int(answers.get(UNKNOWN, 0)),
                ignored=int(answers.get(IGNORED, 0)),
                boxes=float(own["cost_labels"].sum()),
                minutes=float(own["cost_minutes"].sum()),
                per_class=per_class,
            )
        return result

    @property
    def queried(self) -> dict[int, QueryYield]:
        """`yields` of the rounds that asked: without the labels to begin with."""
        return {round_: found for round_, found in self.yields.items() if round_ > 0}

    def class_counts(self, before_round: int) -> NDArray[np.int64]:
        """Nuclei per known class, (C,), that the model of ``before_round`` was trained on."""
        rows = [found.per_class for round_, found in self.yields.items() if round_ < before_round]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.classes)).sum(axis=0)

    def known_queried_before(self, round_: int) -> int:
        """Known nuclei in all answers that the model of ``round_`` was trained on, those to begin with included."""
        return int(self.class_counts(round_).sum())

    # -- the pool -----------------------------------------------------------------------------------------------------

    @cached_property
    def fovs(self) -> pd.DataFrame | None:
        """The run's table of fields of view, ``fovs.parquet``; None where there is none.

        Raises:
            LedgerError: the file is there and is no such table.
        """
        path = self.folder / "fovs.parquet"
        if not path.is_file():
            return None
        try:
            return read_fovs(path)
        except CohortError as error:
            raise LedgerError(f"{self.name}: {error}; delete the file to report without pictures and pool") from error

    def pool_rate(self, round_: int) -> PoolRate | None:
        """The pool that the query of a round was made from, out of the table's classes.

        None without a table of fields, or where nobody knows the nuclei of unlabelled fields (a person annotates).
        """
        table = self._pool
        if table is None:
            return None
        labels = self.tables["labels"]
        taken = labels.loc[labels["round"] < round_, "sample_id"]
        left = table[~table["id"].isin(taken)]
        known, unknown = int(left["known"].sum()), int(left["unknown"].sum())
        return PoolRate(len(left), known, unknown) if known + unknown else None

    @cached_property
    def _pool(self) -> pd.DataFrame | None:
        """Columns id, known, unknown of the fields that may be asked for."""
        if self.fovs is None:
            return None
        table = self.fovs
        if "part" in table.columns:
            table = table[table["part"] == "train"]
        known = [sum(name in self.classes for name in names) for names in table["classes"]]
        unknown = [sum(self._is_unknown(name) for name in names) for names in table["classes"]]
        return pd.DataFrame({"id": table["id"], "known": known, "unknown": unknown})

    def _is_unknown(self, name: str) -> bool:
        """Where the unknown classes are listed, a class on neither side counts for nothing."""
        listed = self.unknown_classes
        return name == UNKNOWN or (name in listed if listed else name != IGNORED and name not in self.classes)
