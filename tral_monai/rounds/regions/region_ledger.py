# SPDX-License-Identifier: Apache-2.0
"""The ledger of rounds that people answer: regions asked for, who holds them, what was submitted and drawn."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shapely.geometry import mapping, shape

from tral_monai.errors import LedgerError
from tral_monai.rounds.ledger import Ledger
from tral_monai.rounds.regions.region import AskedRegion, Purpose, Region, RegionAnswer, RegionQuery

SCHEMA = """
CREATE TABLE IF NOT EXISTS regions (
    region_id INTEGER PRIMARY KEY, slide TEXT NOT NULL, x_level0 INTEGER NOT NULL, y_level0 INTEGER NOT NULL,
    width_level0 INTEGER NOT NULL, height_level0 INTEGER NOT NULL, purpose TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS reservations (region_id INTEGER PRIMARY KEY, client TEXT NOT NULL, until_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS submissions (
    source TEXT PRIMARY KEY, number INTEGER NOT NULL, sha256 TEXT NOT NULL, slide TEXT NOT NULL, client TEXT NOT NULL,
    received_utc TEXT NOT NULL, set_aside TEXT NOT NULL, problems TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    region_id INTEGER NOT NULL, source TEXT NOT NULL, round INTEGER NOT NULL, shapes TEXT NOT NULL,
    cost_labels REAL NOT NULL, cost_minutes REAL NOT NULL, PRIMARY KEY (region_id, source));
"""

NOTHING_DRAWN = "(nothing drawn)"
"""What the table ``labels`` calls an answered region in which nothing was drawn."""

_KEPT = re.compile(r"#\d+$")
_LATEST = """
SELECT answers.* FROM answers JOIN submissions USING (source)
WHERE number = (SELECT MAX(number) FROM answers AS others JOIN submissions USING (source)
                WHERE others.region_id = answers.region_id)
"""
_ASKED = """
SELECT queries.round, queries.rank, regions.slide, regions.x_level0, regions.y_level0, width_level0, height_level0,
       purpose, class_asked, score, reason, EXISTS (SELECT 1 FROM answers WHERE answers.region_id = sample_id),
       client, until_s
FROM queries JOIN regions ON region_id = sample_id LEFT JOIN reservations USING (region_id)
"""


class Submission(NamedTuple):
    """A label file as it was taken in: where it lies, its hash, its slide, and what in it did not count."""

    source: str
    sha256: str
    slide: str
    client: str
    received_utc: str
    set_aside: dict[str, int]
    problems: tuple[str, ...]


def submitted_file(source: str) -> str:
    """The label file of a source: itself, or of what was kept of a replaced one (``a.xml#7``), the one in its place."""
    return _KEPT.sub("", source)


class RegionLedger(Ledger):
    """A ledger whose samples are regions, and whose answers come one by one from people.

    The query of a round is recorded as a whole. Regions are handed out in its order and reserved for a while. A
    submission (one label file) answers one or more regions; the same file submitted again replaces what it said, and
    the newest submission counts where two answer one region. Every method is one transaction. Several processes and
    threads may have a ledger object each; one object belongs to one thread.

    Args:
        path: the SQLite file; made, with its folder, where it does not exist.

    Raises:
        LedgerError: the file is not a ledger.
        OutputError: its folder cannot be made.
    """

    schema = Ledger.schema + SCHEMA

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._db.execute("PRAGMA busy_timeout=15000")

    def __enter__(self) -> RegionLedger:
        return self

    @property
    def round(self) -> int:
        """The current round: that of the newest training, 0 before the first."""
        row = self._one("SELECT MAX(round) FROM models")
        return int(row[0]) if row is not None and row[0] is not None else 0

    # -- the query ----------------------------------------------------------------------------------------------------

    def record_region_query(self, round_: int, rows: Sequence[RegionQuery]) -> None:
        """Record the whole query of a round.

        Raises:
            LedgerError: the round has a query already, or a region was asked for before.
        """
        with self._transaction():
            if self._one("SELECT 1 FROM queries WHERE round = ?", round_):
                raise LedgerError(f"round {round_} has a query already: a budget is spent once")
            for rank, row in enumerate(rows):
                self._insert_asked(round_, rank, row)

    def exchange(self, out: AskedRegion, row: RegionQuery) -> bool:
        """Ask for another region in place of one that nobody has been given or answered; budget and rank stay.

        Returns:
            False where somebody was given it in the meantime.

        Raises:
            LedgerError: the other region was asked for before.
        """
        with self._transaction():
            current = self._asked("WHERE sample_id = ?", out.region.id)
            if not current or current[0].answered or current[0].reserved_until > time.time():
                return False
            self._db.execute("DELETE FROM queries WHERE sample_id = ?", (out.region.id,))
            self._db.execute("DELETE FROM reservations WHERE region_id = ?", (out.region.id,))
            self._insert_asked(out.round, out.rank, row)
        return True

    def withdraw_query(self, round_: int) -> bool:
        """Take back the query of a round of which nobody has been given anything yet.

        Returns:
            False, with nothing changed, where a region of it is answered or was ever handed out.
        """
        with self._transaction():
            if any(asked.answered or asked.reserved_by for asked in self._asked("WHERE queries.round = ?", round_)):
                return False
            self._db.execute("DELETE FROM queries WHERE round = ?", (round_,))
        return True

    def asked(self, round_: int | None = None) -> list[AskedRegion]:
        """The regions of one round's query, or of all, in the order of round and rank."""
        if round_ is None:
            return self._asked("")
        return self._asked("WHERE queries.round = ?", round_)

    def reserve_next(
        self,
        round_: int,
        client: str,
        *,
        seconds: float,
        slide: str | None = None,
        without_slides: Collection[str] = (),
        again: bool = False,
        now_s: float | None = None,
    ) -> AskedRegion | None:
        """Hand out the first region of the query that is neither answered nor reserved, and reserve it.

        Args:
            round_: the round.
            client: who asks.
            seconds: how long the region is kept for the client.
            slide: only regions of this slide.
            without_slides: no region of these, such as files that are gone.
            again: where nothing is open, hand out the client's own reserved region that it got first.
            now_s: the time, seconds since 1970; the clock's where not given.

        Returns:
            The region with its reservation, or None where nothing is open.
        """
        now = time.time() if now_s is None else now_s
        with self._transaction():
            rows = [
                asked
                for asked in self._asked("WHERE queries.round = ?", round_)
                if not asked.answered
                and asked.region.slide not in without_slides
                and (slide is None or asked.region.slide == slide)
            ]
            chosen = next((asked for asked in rows if asked.reserved_until <= now), None)
            if chosen is None and again:
                own = [asked for asked in rows if asked.reserved_by == client]
                chosen = min(own, key=lambda asked: asked.reserved_until, default=None)
            if chosen is None:
                return None
            self._db.execute(
                "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?)", (chosen.region.id, client, now + seconds)
            )
            return self._asked("WHERE sample_id = ?", chosen.region.id)[0]

    def renew(self, region_id: int, client: str, *, until_s: float, seconds: float) -> AskedRegion | None:
        """Reserve a region anew for the one who holds it.

        Args:
            region_id: the region.
            client: who asks.
            until_s: the end of the reservation that this client was told.
            seconds: how long the region is kept from now on.

        Returns:
            The region with its new reservation, or None where it was answered, or given to somebody else, since then.
        """
        with self._transaction():
            found = self._asked("WHERE sample_id = ?", region_id)
            if not found or found[0].answered or found[0].reserved_until != until_s:
                return None
            self._db.execute(
                "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?)", (region_id, client, time.time() + seconds)
            )
            return self._asked("WHERE sample_id = ?", region_id)[0]

    # -- submissions --------------------------------------------------------------------------------------------------

    def record_submission(
        self,
        source: str,
        *,
        sha256: str,
        slide: str,
        client: str,
        answers: Sequence[RegionAnswer],
        set_aside: Mapping[str, int] | None = None,
        problems: Sequence[str] = (),
        keep: Collection[int] = (),
    ) -> None:
        """Record what a label file says, in place of what it said before.

        Args:
            source: the label file, relative to the labels' folder.
            sha256: hash of its content.
            slide: file name of its slide.
            client: who sent it.
            answers: the regions that it answers. A region that was not asked for is recorded too.
            set_aside: how many objects of which class name do not count, and stay in the file alone.
            problems: what was repaired or left out, one sentence each.
            keep: ids of regions that this label file answered before it was replaced, and that stay answered as they
                were. They stand under ``<source>#<number>`` from now on, until the file is replaced again without them
                in ``keep``, or is forgotten.
        """
        round_ = self.round
        with self._transaction():
            affected = self._replace(source, keep)
            number = int((self._one("SELECT COALESCE(MAX(number), 0) + 1 FROM submissions") or (1,))[0])
            utc = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            self._db.execute(
                "INSERT INTO submissions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (source, number, sha256, slide, client, utc, json.dumps(set_aside or {}), json.dumps(list(problems))),
            )
            for answer in answers:
                self._insert_region(answer.region, answer.purpose)
                first = affected.get(answer.region.id, round_)
                shapes = json.dumps([[name, mapping(geometry)] for name, geometry in answer.shapes])
                self._db.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
                    (answer.region.id, source, first, shapes, answer.cost_labels, answer.cost_minutes),
                )
            self._update_labels({*affected, *(answer.region.id for answer in answers)})

    def forget_submission(self, source: str) -> bool:
        """Forget a label file that was deleted, and what was kept of the files before it.

        Returns:
            Whether it was known.
        """
        with self._transaction():
            known = bool(self._versions(source))
            self._update_labels(set(self._replace(source, ())))
        return known

    def answered_by(self, source: str) -> tuple[list[Region], list[Region]]:
        """The regions that a label file answers, and those that were kept of the files before it."""
        found: tuple[list[Region], list[Region]] = ([], [])
        for version in self._versions(source):
            rows = self._db.execute(
                "SELECT slide, x_level0, y_level0, width_level0, height_level0 FROM answers JOIN regions "
                "USING (region_id) WHERE source = ? ORDER BY region_id",
                (version,),
            )
            found[version != source].extend(Region(*row) for row in rows)
        return found

    def submissions(self) -> dict[str, Submission]:
        """All label files that were taken in, by source, in the order of their arrival."""
        rows = self._db.execute(
            "SELECT source, sha256, slide, client, received_utc, set_aside, problems FROM submissions ORDER BY number"
        )
        return {
            row[0]: Submission(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]), tuple(json.loads(row[6])))
            for row in rows
        }

    def answers(self) -> list[RegionAnswer]:
        """What counts of every answered region, by region id."""
        rows = self._db.execute(
            "SELECT slide, x_level0, y_level0, width_level0, height_level0, purpose, shapes, cost_labels, cost_minutes "
            f"FROM ({_LATEST}) JOIN regions USING (region_id) ORDER BY region_id"
        ).fetchall()
        return [
            RegionAnswer(
                Region(*row[:5]),
                row[5],
                tuple((name, shape(geometry)) for name, geometry in json.loads(row[6])),
                row[7],
                row[8],
            )
            for row in rows
        ]

    # -- inside a transaction -----------------------------------------------------------------------------------------

    def _insert_asked(self, round_: int, rank: int, row: RegionQuery) -> None:
        region = row.region
        if self._one("SELECT 1 FROM queries WHERE sample_id = ?", region.id):
            raise LedgerError(f"{region.slide}: the region {region.bbox_level0} was asked for before")
        self._insert_region(region, row.purpose)
        self._db.execute(
            "INSERT INTO queries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                round_,
                rank,
                region.id,
                region.slide,
                region.x_level0,
                region.y_level0,
                row.class_asked,
                row.score,
                row.reason,
            ),
        )

    def _insert_region(self, region: Region, purpose: Purpose) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO regions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (region.id, region.slide, *region.bbox_level0, purpose),
        )

    def _versions(self, source: str) -> list[str]:
        """A label file and what was kept of those before it, as sources; the newest last."""
        rows = self._db.execute(
            "SELECT source FROM submissions WHERE source = ? OR substr(source, 1, ?) = ? ORDER BY number",
            (source, len(source) + 1, f"{source}#"),
        )
        return [row[0] for row in rows if row[0] == source or submitted_file(row[0]) == source]

    def _replace(self, source: str, keep: Collection[int]) -> dict[int, int]:
        """Delete what a label file said, but for some regions; the others, with the round of each's first answer."""
        affected: dict[int, int] = {}
        for version in self._versions(source):
            rows = self._db.execute("SELECT region_id, round FROM answers WHERE source = ?", (version,)).fetchall()
            gone = [row for row in rows if row[0] not in keep]
            for region_id, round_ in gone:
                affected[region_id] = min(round_, affected.get(region_id, round_))
                self._db.execute("DELETE FROM answers WHERE source = ? AND region_id = ?", (version, region_id))
            if len(gone) == len(rows):
                self._db.execute("DELETE FROM submissions WHERE source = ?", (version,))
            elif version == source:
                number = (self._one("SELECT number FROM submissions WHERE source = ?", source) or (0,))[0]
                for table in ("answers", "submissions"):
                    self._db.execute(f"UPDATE {table} SET source = ? WHERE source = ?", (f"{source}#{number}", source))
        return affected

    def _update_labels(self, region_ids: set[int]) -> None:
        """Bring the rows that reports and budgets read in line with the answers."""
        for region_id in region_ids:
            self._db.execute("DELETE FROM labels WHERE sample_id = ?", (region_id,))
            row = self._one(
                "SELECT round, slide, x_level0, y_level0, shapes, cost_labels, cost_minutes "
                f"FROM ({_LATEST}) JOIN regions USING (region_id) WHERE region_id = ?",
                region_id,
            )
            if row is None:
                continue
            area: Counter[str] = Counter()
            for name, geometry in json.loads(row[4]):
                area[name] += shape(geometry).area
            given = area.most_common(1)[0][0] if area else NOTHING_DRAWN
            self._db.execute(
                "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (region_id, *row[:4], given, row[5], row[6])
            )
            self._db.execute("DELETE FROM reservations WHERE region_id = ?", (region_id,))

    def _asked(self, where: str, *values: Any) -> list[AskedRegion]:
        rows = self._db.execute(f"{_ASKED} {where} ORDER BY queries.round, queries.rank", values).fetchall()
        return [
            AskedRegion(
                region=Region(*row[2:7]),
                purpose=row[7],
                round=row[0],
                rank=row[1],
                class_asked=row[8],
                score=row[9],
                reason=row[10],
                answered=bool(row[11]),
                reserved_by=row[12],
                reserved_until=row[13] or 0.0,
            )
            for row in rows
        ]
