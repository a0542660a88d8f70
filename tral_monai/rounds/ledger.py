# SPDX-License-Identifier: Apache-2.0
"""The ledger: one SQLite file per run, the only record that decides what has been done and what was spent."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from tral_monai.errors import LedgerError, OutputError

SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    round INTEGER PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    seconds REAL NOT NULL, epochs INTEGER NOT NULL, val_loss REAL);
CREATE TABLE IF NOT EXISTS metrics (
    round INTEGER NOT NULL, split TEXT NOT NULL, name TEXT NOT NULL, value REAL,
    PRIMARY KEY (round, split, name));
CREATE TABLE IF NOT EXISTS confusion (
    round INTEGER NOT NULL, split TEXT NOT NULL, true_class TEXT NOT NULL, predicted_class TEXT NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (round, split, true_class, predicted_class));
CREATE TABLE IF NOT EXISTS queries (
    round INTEGER NOT NULL, rank INTEGER NOT NULL, sample_id INTEGER NOT NULL UNIQUE, slide TEXT NOT NULL,
    x_level0 INTEGER NOT NULL, y_level0 INTEGER NOT NULL, class_asked TEXT, score REAL, reason TEXT,
    PRIMARY KEY (round, rank));
CREATE TABLE IF NOT EXISTS labels (
    sample_id INTEGER PRIMARY KEY, round INTEGER NOT NULL, slide TEXT NOT NULL,
    x_level0 INTEGER NOT NULL, y_level0 INTEGER NOT NULL, class_given TEXT,
    cost_labels REAL NOT NULL, cost_minutes REAL NOT NULL);
CREATE TABLE IF NOT EXISTS nuclei (
    sample_id INTEGER NOT NULL, nucleus INTEGER NOT NULL, xmin REAL NOT NULL, ymin REAL NOT NULL,
    xmax REAL NOT NULL, ymax REAL NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (sample_id, nucleus));
CREATE TABLE IF NOT EXISTS auxiliary_models (
    round INTEGER NOT NULL, role TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    seconds REAL NOT NULL, epochs INTEGER NOT NULL, val_loss REAL, PRIMARY KEY (round, role));
CREATE TABLE IF NOT EXISTS events (
    round INTEGER NOT NULL, stage TEXT NOT NULL, at_utc TEXT NOT NULL, PRIMARY KEY (round, stage));
"""

_OF_THE_DISK = ("database or disk is full", "disk I/O error", "readonly database", "unable to open database file")


class ModelRecord(NamedTuple):
    """A trained model: its file (relative to the run's folder), hash and how it was trained."""

    path: str
    sha256: str
    seconds: float
    epochs: int
    val_loss: float | None


class QueryRow(NamedTuple):
    """One sample asked for, with the reason why; ``class_asked`` is None where no class was asked."""

    sample_id: int
    slide: str
    x_level0: int
    y_level0: int
    class_asked: str | None
    score: float
    reason: str


class LabelRow(NamedTuple):
    """One answer; ``class_given`` is None where the annotator declined."""

    sample_id: int
    slide: str
    x_level0: int
    y_level0: int
    class_given: str | None
    cost_labels: float
    cost_minutes: float


class NucleusRow(NamedTuple):
    """One nucleus of an answered field of view, in the field's pixels: a known class, ``unknown`` or ``ignored``."""

    sample_id: int
    nucleus: int
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    answer: str


class Ledger:
    """Rounds, queries, labels, costs, metrics and provenance of one run.

    Every ``record_*`` call is one transaction that is on disk when the call returns; where the disk is full, failing or
    read-only it raises ``OutputError``, and nothing of it is recorded. Rounds count from 1. Initial labels carry round
    0; the query made after training round r, and the labels that answer it, carry round r.

    Args:
        path: the SQLite file; made, with its folder, where it does not exist.

    Raises:
        LedgerError: the file is not a ledger, or another process writes to it.
        OutputError: its folder cannot be made, or the disk refuses the file.
    """

    schema: ClassVar[str] = SCHEMA
    """Tables that are made where they are not there yet; a ledger of more kinds of things adds its own."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"the folder '{self.path.parent}' cannot be made ({error.strerror}); choose another with output_dir"
            ) from error
        try:
            # A plain rollback journal, not WAL: a finished ledger is one file that can be copied away.
            self._db = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(self.schema)
        except sqlite3.OperationalError as error:
            raise _refused(self.path, error, "open") from error
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{self.path} is not a ledger ({error}); choose another output folder") from error

    def close(self) -> None:
        """Close the file; the ledger cannot be used afterwards."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the run ------------------------------------------------------------------------------------------------------

    def begin(self, identity: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> bool:
        """Start the run, or go on with it.

        Args:
            identity: JSON values that make it the same run (strategy, seed, budget, classes, hash of the index, ...).
            provenance: JSON values that are recorded at the first start only (versions, commit, config, ...).

        Returns:
            True where a run that had begun earlier goes on.

        Raises:
            LedgerError: the file holds a run with another identity; the message names every difference.
        """
        wanted = {key: json.loads(_json(value)) for key, value in identity.items()}
        with self._transaction():
            recorded = self._get_all()
            if "identity" not in recorded:
                self._put({**(provenance or {}), **wanted, "identity": sorted(wanted)})
                return False
            differences = [
                f"{key}: recorded {recorded.get(key)!r}, asked {wanted.get(key)!r}"
                for key in sorted(set(recorded["identity"]) | set(wanted))
                if recorded.get(key) != wanted.get(key)
            ]
        if differences:
            raise LedgerError(
                f"{self.path} holds another run ({'; '.join(differences)}). "
                "Give the recorded settings to go on with it, or another output folder to start anew"
            )
        return True

    def info(self) -> dict[str, Any]:
        """All that is recorded about the run: its identity and provenance."""
        return self._get_all()

    def record_info(self, values: Mapping[str, Any]) -> None:
        """Record or replace JSON values about the run.

        Raises:
            LedgerError: a value belongs to the identity of the run, which cannot change.
        """
        with self._transaction():
            fixed = set(self._get_all().get("identity", ())) & set(values)
            if fixed:
                raise LedgerError(f"{sorted(fixed)} belong to the identity of the run and cannot change")
            self._put(values)

    # -- what a round does --------------------------------------------------------------------------------------------

    def record_event(self, round_: int, stage: str) -> None:
        """Record the first time that a stage of a round was reached."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (round_, stage, now))

    def record_model(self, round_: int, model: ModelRecord) -> None:
        """Record the model that a round trained."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?, ?, ?)", (round_, *model))

    def model(self, round_: int) -> ModelRecord | None:
        """The model of a round, or None before it is trained."""
        row = self._one("SELECT path, sha256, seconds, epochs, val_loss FROM models WHERE round = ?", round_)
        return None if row is None else ModelRecord(*row)

    def record_auxiliary_model(self, round_: int, role: str, model: ModelRecord) -> None:
        """Record a further model that a round trained, which only the choice of the query needs."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO auxiliary_models VALUES (?, ?, ?, ?, ?, ?, ?)", (round_, role, *model)
            )

    def auxiliary_model(self, round_: int, role: str) -> ModelRecord | None:
        """A further model of a round by its role, or None before it is trained."""
        row = self._one(
            "SELECT path, sha256, seconds, epochs, val_loss FROM auxiliary_models WHERE round = ? AND role = ?",
            round_,
            role,
        )
        return None if row is None else ModelRecord(*row)

    def record_evaluation(
        self,
        round_: int,
        split: str,
        metrics: Mapping[str, float],
        confusion: Sequence[Sequence[int]] = (),
        classes: Sequence[str] = (),
    ) -> None:
        """Record the metrics of a round on a split.

        Args:
            round_: the round.
            split: what was measured on.
            metrics: values by name; NaN stands for an undefined one.
            confusion: (C, C) counts (rows: truth, columns: prediction) of a classifier; a detector has none.
            classes: C names.
        """
        cells = [
            (round_, split, truth, predicted, int(count))
            for truth, row in zip(classes, confusion, strict=True)
            for predicted, count in zip(classes, row, strict=True)
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)",
                [(round_, split, name, float(value)) for name, value in metrics.items()],
            )
            self._db.executemany("INSERT OR REPLACE INTO confusion VALUES (?, ?, ?, ?, ?)", cells)

    def metrics(self, round_: int, split: str) -> dict[str, float]:
        """Metrics of a round on a split by name, NaN where undefined; empty before it is evaluated."""
        rows = self._db.execute("SELECT name, value FROM metrics WHERE round = ? AND split = ?", (round_, split))
        return {name: float("nan") if value is None else float(value) for name, value in rows}

    def confusion(self, round_: int, split: str, classes: Sequence[str]) -> list[list[int]] | None:
        """Confusion matrix of a round on a split (rows: truth), or None before it is evaluated."""
        rows = self._db.execute(
            "SELECT true_class, predicted_class, count FROM confusion WHERE round = ? AND split = ?", (round_, split)
        ).fetchall()
        counts = {(truth, predicted): count for truth, predicted, count in rows}
        return [[counts.get((i, j), 0) for j in classes] for i in classes] if counts else None

    def record_query(self, round_: int, rows: Sequence[QueryRow]) -> None:
        """Record the whole query of a round.

        Raises:
            LedgerError: the round has a query already, or a sample was asked for or labelled before.
        """
        try:
            with self._transaction():
                if self._one("SELECT 1 FROM queries WHERE round = ?", round_):
                    raise LedgerError(f"round {round_} has a query already: a budget is spent once")
                self._db.executemany(
                    "INSERT INTO queries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [(round_, rank, *row) for rank, row in enumerate(rows)],
                )
        except sqlite3.IntegrityError as error:
            raise LedgerError(
                f"the query of round {round_} names a sample that was asked for before ({error})"
            ) from error

    def query(self, round_: int) -> list[QueryRow]:
        """The query of a round in order of rank; empty before it is made."""
        return [
            QueryRow(*row)
            for row in self._db.execute(
                "SELECT sample_id, slide, x_level0, y_level0, class_asked, score, reason FROM queries "
                "WHERE round = ? ORDER BY rank",
                (round_,),
            )
        ]

    def record_labels(self, round_: int, rows: Sequence[LabelRow], *, nuclei: Sequence[NucleusRow] = ()) -> None:
        """Record the answers of a round, all in one transaction.

        Args:
            round_: the round that asked; 0 for initial labels.
            rows: one for each sample; one labelled before is refused and nothing is recorded.
            nuclei: what was drawn in fields of view that are among ``rows``.

        Raises:
            LedgerError: a sample has a label already, or nuclei belong to a sample that is not in ``rows``.
        """
        strangers = sorted({row.sample_id for row in nuclei} - {row.sample_id for row in rows})
        if strangers:
            raise LedgerError(f"nuclei of samples {strangers[:5]} cannot be recorded without a label row of each")
        try:
            with self._transaction():
                self._db.executemany(
                    "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [(row.sample_id, round_, *row[1:]) for row in rows],
                )
                self._db.executemany("INSERT INTO nuclei VALUES (?, ?, ?, ?, ?, ?, ?)", nuclei)
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"a sample of round {round_} is labelled already: a budget is spent once") from error

    def labels(self, before_round: int | None = None) -> pd.DataFrame:
        """All labels, or those that training in ``before_round`` may use, ordered by round and sample id."""
        limit = 2**62 if before_round is None else before_round
        return self._frame("SELECT * FROM labels WHERE round < ? ORDER BY round, sample_id", limit)

    def nuclei(self, before_round: int | None = None) -> pd.DataFrame:
        """The nuclei of all answers, or of those that training in ``before_round`` may use, by sample and number."""
        limit = 2**62 if before_round is None else before_round
        return self._frame(
            "SELECT nuclei.* FROM nuclei JOIN labels USING (sample_id) WHERE round < ? ORDER BY sample_id, nucleus",
            limit,
        )

    def table(self, name: str) -> pd.DataFrame:
        """One whole table of the ledger, for reports.

        Raises:
            LedgerError: there is no such table.
        """
        names = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if name not in names:
            raise LedgerError(f"the ledger has no table '{name}'; it has {sorted(names)}")
        return self._frame(f"SELECT * FROM {name}")

    # -- SQLite -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise _refused(self.path, error, "write to") from error
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._rollback()
            raise _refused(self.path, error, "write to") from error
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        # A full or failing disk makes SQLite roll back by itself, and its rollback may fail as well; what is on the
        # disk is then put right when the file is next opened.
        if self._db.in_transaction:
            with suppress(sqlite3.OperationalError):
                self._db.execute("ROLLBACK")

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
        return row

    def _frame(self, sql: str, *values: object) -> pd.DataFrame:
        cursor = self._db.execute(sql, values)
        return pd.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])

    def _get_all(self) -> dict[str, Any]:
        return {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM run")}

    def _put(self, values: Mapping[str, Any]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO run VALUES (?, ?)", [(key, _json(value)) for key, value in values.items()]
        )


def _refused(path: Path, error: sqlite3.OperationalError, verb: str) -> LedgerError | OutputError:
    """The disk's refusals (full, failing, read-only) are told apart from all others, such as a lock held too long."""
    # By the message: its code is an attribute from Python 3.11 on only.
    if any(words in str(error) for words in _OF_THE_DISK):
        return OutputError(
            f"cannot {verb} the ledger {path}: {error}; check that its folder may be written to, that the disk is "
            "sound and has free space, then do the same again: nothing was recorded of it"
        )
    return LedgerError(f"cannot {verb} the ledger {path}: {error}")


def _json(value: object) -> str:
    return json.dumps(value, default=str)  # devices and paths appear by their names
