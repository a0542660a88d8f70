# SPDX-License-Identifier: Apache-2.0
"""One run as the report sees it: the tables of its ledger, read without writing, and what follows from them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tral_monai.errors import LedgerError

if TYPE_CHECKING:
    from typing_extensions import Self

TABLES = ("models", "metrics", "confusion", "queries", "labels", "events")
SPLITS = ("val", "test")


class Curve(NamedTuple):
    """One metric against what was spent: rounds (n,), labels (n,), and values (n,) in 0..1, NaN where undefined."""

    rounds: NDArray[np.int64]
    labels: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RunData:
    """The tables of a ledger and the figures derived from them.

    Rounds count from 1. Initial labels carry round 0; the model of round r was trained on the labels of rounds < r; the
    query made after training round r, and its labels, carry round r.

    Args:
        folder: the run's folder.
        settings: the ``run`` table, values decoded from JSON.
        tables: the other tables by name.
    """

    table_names: ClassVar[tuple[str, ...]] = TABLES
    """Tables of the ledger that are read."""

    folder: Path
    settings: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    @classmethod
    def from_folder(cls, run_dir: str | Path) -> Self:
        """Read ``<run_dir>/ledger.sqlite``; nothing is written.

        Raises:
            LedgerError: there is no ledger, a table is missing, or the run names no classes.
        """
        folder = Path(run_dir)
        path = folder / "ledger.sqlite"
        if not path.is_file():
            raise LedgerError(f"no ledger.sqlite in {folder}: expected the output folder of an active-learning run")
        try:
            run, tables = _read(path, "ro", cls.table_names)
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise LedgerError(f"cannot read {path}: {error}") from error
            # A process was killed in the middle of a write. Opening for writing makes SQLite take back the unfinished
            # transaction, as the next start of the run would.
            run, tables = _read(path, "rw", cls.table_names)
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not the ledger of a run: {error}") from error
        if not run.get("classes"):
            raise LedgerError(f"{path} names no classes: the run was never begun; start it before asking for a report")
        return cls(folder=folder, settings=run, tables=tables)

    # -- the run ------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(str(name) for name in self.settings["classes"])

    @property
    def strategy(self) -> str:
        """Name of the query strategy."""
        return str(self.settings.get("strategy", "unknown strategy"))

    @property
    def seed(self) -> int | None:
        """The run's seed, or None where it was not recorded."""
        seed = self.settings.get("seed")
        return None if seed is None else int(seed)

    # -- rounds -------------------------------------------------------------------------------------------------------

    @cached_property
    def evaluated_rounds(self) -> tuple[int, ...]:
        """Rounds that have metrics, in order."""
        return tuple(int(round_) for round_ in sorted(self.tables["metrics"]["round"].unique()))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Splits that were evaluated: ``val`` and ``test`` first, others after them."""
        found = {str(split) for split in self.tables["metrics"]["split"].unique()}
        return tuple(split for split in SPLITS if split in found) + tuple(sorted(found - set(SPLITS)))

    @property
    def main_split(self) -> str | None:
        """The split that results are quoted on: test where there is one."""
        return "test" if "test" in self.splits else (self.splits[0] if self.splits else None)

    @property
    def unfinished_round(self) -> tuple[int, str] | None:
        """Round and last stage of a round that was begun but not completed, or None."""
        events = self.tables["events"]
        if events.empty:
            return None
        last = int(events["round"].max())
        rows = events[events["round"] == last].sort_values("at_utc", kind="stable")
        stages = [str(stage).lower() for stage in rows["stage"]]
        return None if "round_completed" in stages else (last, stages[-1])

    @property
    def published_round(self) -> int | None:
        """The round whose model is the run's ``model.pt``, or None where that was not recorded."""
        round_ = self.settings.get("published_round")
        return None if round_ is None else int(round_)

    # -- labels and costs ---------------------------------------------------------------------------------------------

    @cached_property
    def _labels_by_round(self) -> dict[int, float]:
        costs = self.tables["labels"].groupby("round")["cost_labels"].sum()
        return {int(round_): float(cost) for round_, cost in zip(costs.index.tolist(), costs, strict=True)}

    def labels_before(self, round_: int) -> float:
        """Labels paid for that the model of ``round_`` was trained on."""
        return sum(cost for of_round, cost in self._labels_by_round.items() if of_round < round_)

    def labels_in(self, round_: int) -> float:
        """Labels paid for in one round (0: the initial set)."""
        return self._labels_by_round.get(round_, 0.0)

    @property
    def labels_spent(self) -> float:
        """All labels paid for."""
        return sum(self._labels_by_round.values())

    @property
    def minutes_spent(self) -> float:
        """Estimated minutes of annotation of all labels."""
        return float(self.tables["labels"]["cost_minutes"].sum())

    def class_counts(self, before_round: int) -> NDArray[np.int64]:
        """Labels per class, (C,), that the model of ``before_round`` was trained on; declined samples are left out."""
        labels = self.tables["labels"]
        given = labels.loc[labels["round"] < before_round, "class_given"].value_counts()
        return np.array([int(given.get(name, 0)) for name in self.classes], dtype=np.int64)

    def _counts_setting(self, key: str) -> NDArray[np.int64] | None:
        counts = self.settings.get(key)
        if not isinstance(counts, dict) or not counts:
            return None
        return np.array([int(counts.get(name, 0)) for name in self.classes], dtype=np.int64)

    @property
    def full_counts(self) -> NDArray[np.int64] | None:
        """Samples per class, (C,), of the full training set (the index, unless recorded), or None where unknown."""
        counts = self._counts_setting("full_counts")
        return self.pool_counts if counts is None else counts

    @property
    def pool_counts(self) -> NDArray[np.int64] | None:
        """Samples per class, (C,), in the training index, or None where nobody knows (a real annotation run)."""
        return self._counts_setting("class_pool_sizes")

    # -- results ------------------------------------------------------------------------------------------------------

    def metric(self, round_: int, split: str, name: str) -> float:
        """One recorded metric; NaN where it is absent or was undefined."""
        return self._metric_values.get((round_, split, name), float("nan"))

    @cached_property
    def _metric_values(self) -> dict[tuple[int, str, str], float]:
        table = self.tables["metrics"]
        values = pd.to_numeric(table["value"], errors="coerce")
        rows = zip(table["round"], table["split"], table["name"], values, strict=True)
        return {(int(round_), str(split), str(name)): float(value) for round_, split, name, value in rows}

    def curve(self, name: str, split: str) -> Curve:
        """A metric of every round evaluated on ``split``, against the labels that the round was trained on."""
        known = [r for r in self.evaluated_rounds if (r, split, name) in self._metric_values]
        return Curve(
            rounds=np.array(known, dtype=np.int64),
            labels=np.array([self.labels_before(r) for r in known], dtype=np.float64),
            values=np.array([self.metric(r, split, name) for r in known], dtype=np.float64),
        )

    def confusion(self, round_: int, split: str) -> NDArray[np.int64] | None:
        """Confusion matrix (C, C) of a round, rows truth and columns prediction; None where it was not recorded."""
        table = self.tables["confusion"]
        cells = table[(table["round"] == round_) & (table["split"] == split)]
        if cells.empty:
            return None
        index = {name: position for position, name in enumerate(self.classes)}
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        for truth, predicted, count in zip(cells["true_class"], cells["predicted_class"], cells["count"], strict=True):
            if truth not in index or predicted not in index:
                raise LedgerError(
                    f"the confusion of round {round_} names '{truth}' / '{predicted}', "
                    f"but the run's classes are {list(index)}"
                )
            matrix[index[truth], index[predicted]] += int(count)
        return matrix

    @cached_property
    def answers(self) -> pd.DataFrame:
        """Every query with its answer, ordered by round and rank.

        Columns: those of ``queries`` plus ``class_given`` and ``answered`` (bool). ``class_asked`` and ``class_given``
        are None where no class was asked or given.
        """
        labels = self.tables["labels"][["sample_id", "class_given"]]
        table = self.tables["queries"].merge(labels, on="sample_id", how="left", indicator=True)
        table["answered"] = table.pop("_merge").astype(str) == "both"
        for column in ("class_asked", "class_given"):
            values = [None if pd.isna(value) or value in ("", "-1", -1) else str(value) for value in table[column]]
            table[column] = pd.Series(values, index=table.index, dtype=object)
        return table.sort_values(["round", "rank"], kind="stable").reset_index(drop=True)


def _read(path: Path, mode: str, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True)) as connection:
        connection.execute("BEGIN")  # one snapshot, so that no table is newer than another
        run = {str(key): json.loads(value) for key, value in connection.execute("SELECT key, value FROM run")}
        tables = {}
        for name in names:
            cursor = connection.execute(f"SELECT * FROM {name}")
            tables[name] = pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])
    return run, tables
