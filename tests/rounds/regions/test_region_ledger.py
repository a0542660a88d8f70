# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely

from tral_monai.errors import LedgerError
from tral_monai.rounds.ledger import Ledger
from tral_monai.rounds.regions.region import AskedRegion, Region, RegionAnswer, RegionQuery
from tral_monai.rounds.regions.region_ledger import NOTHING_DRAWN, RegionLedger

A, B, C, D = (Region(slide, 0, 0, 10 + n, 10) for n, slide in enumerate(("s.tif", "s.tif", "t.tif", "t.tif")))
SQUARE, TALL = shapely.box(0, 0, 2, 2), shapely.box(2, 0, 3, 9)


def query(*regions: Region) -> list[RegionQuery]:
    return [RegionQuery(region, "train", "Tumor", 0.5, "because") for region in regions]


def answer(region: Region, *shapes: tuple[str, shapely.Polygon], labels: float = 1.0) -> RegionAnswer:
    return RegionAnswer(region, "train", shapes, labels, 0.5)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[RegionLedger]:
    with RegionLedger(tmp_path / "x" / "ledger.sqlite") as opened:
        assert isinstance(opened, RegionLedger)
        yield opened


def submit(ledger: RegionLedger, source: str, *answers: RegionAnswer, slide: str = "s.tif", sha256: str = "0") -> None:
    ledger.record_submission(source, sha256=sha256, slide=slide, client="anna", answers=answers)


def regions(asked: list[AskedRegion]) -> list[Region]:
    return [one.region for one in asked]


def test_a_query_comes_back_in_its_order_and_is_made_once(ledger: RegionLedger) -> None:
    assert ledger.round == 0
    ledger.record_region_query(0, query(C, A, B))
    assert regions(ledger.asked(0)) == [C, A, B]
    assert regions(ledger.asked()) == [C, A, B]
    assert ledger.asked(1) == []
    first = ledger.asked(0)[0]
    assert (first.rank, first.class_asked, first.score, first.reason, first.purpose) == (
        0,
        "Tumor",
        0.5,
        "because",
        "train",
    )
    assert (first.answered, first.reserved_by, first.reserved_until) == (False, None, 0.0)
    with pytest.raises(LedgerError, match=r"round 0 has a query already: a budget is spent once"):
        ledger.record_region_query(0, query(D))


def test_a_query_with_a_region_of_an_earlier_one_is_not_recorded_at_all(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A))
    with pytest.raises(LedgerError, match=r"s\.tif: the region \(0, 0, 10, 10\) was asked for before"):
        ledger.record_region_query(1, query(B, A))
    assert ledger.asked(1) == []


def test_regions_are_handed_out_in_order_and_held_until_the_time_is_up(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B, C))
    first = ledger.reserve_next(0, "anna", seconds=60, now_s=1000.0)
    assert first is not None
    assert (first.region, first.reserved_by, first.reserved_until) == (A, "anna", 1060.0)
    second = ledger.reserve_next(0, "ben", seconds=60, now_s=1001.0)
    assert second is not None
    assert second.region == B
    third = ledger.reserve_next(0, "anna", seconds=60, slide="s.tif", now_s=1002.0)
    assert third is None
    late = ledger.reserve_next(0, "ben", seconds=60, now_s=1060.0)  # anna's time is up
    assert late is not None
    assert (late.region, late.reserved_by) == (A, "ben")


def test_slides_can_be_asked_for_and_left_out(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B, C, D))
    of_t = ledger.reserve_next(0, "anna", seconds=60, slide="t.tif")
    assert of_t is not None
    assert of_t.region == C
    without_s = ledger.reserve_next(0, "anna", seconds=60, without_slides=["s.tif"])
    assert without_s is not None
    assert without_s.region == D
    assert ledger.reserve_next(0, "anna", seconds=60, without_slides={"s.tif"}) is None


def test_a_client_gets_its_own_region_again_where_nothing_else_is_open(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B, C))
    for client, now_s in (("anna", 1000.0), ("anna", 1001.0), ("ben", 1002.0)):
        assert ledger.reserve_next(0, client, seconds=60, again=True, now_s=now_s) is not None
    again = ledger.reserve_next(0, "anna", seconds=60, again=True, now_s=1003.0)
    assert again is not None
    assert (again.region, again.reserved_until) == (A, 1063.0)
    assert ledger.reserve_next(0, "anna", seconds=60, now_s=1003.0) is None
    assert ledger.reserve_next(0, "carl", seconds=60, again=True, now_s=1003.0) is None


def test_no_two_threads_get_one_region(tmp_path: Path) -> None:
    rows = query(*(Region("s.tif", 10 * n, 0, 10, 10) for n in range(24)))
    with RegionLedger(tmp_path / "l.sqlite") as ledger:
        assert isinstance(ledger, RegionLedger)
        ledger.record_region_query(0, rows)
    given: list[Region] = []

    def take(client: str) -> None:
        with RegionLedger(tmp_path / "l.sqlite") as own:
            assert isinstance(own, RegionLedger)
            while (asked := own.reserve_next(0, client, seconds=60)) is not None:
                given.append(asked.region)

    threads = [threading.Thread(target=take, args=(f"client {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == sorted(row.region for row in rows)


def test_a_region_is_exchanged_unless_somebody_holds_or_answered_it(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B))
    first, second = ledger.asked(0)
    assert ledger.exchange(second, query(C)[0])
    assert regions(ledger.asked(0)) == [A, C]
    assert [one.rank for one in ledger.asked(0)] == [0, 1]
    assert not ledger.exchange(second, query(D)[0])  # it is no longer asked for
    ledger.reserve_next(0, "anna", seconds=60)
    assert not ledger.exchange(first, query(D)[0])
    submit(ledger, "t.xml", answer(C), slide="t.tif")
    assert not ledger.exchange(ledger.asked(0)[1], query(D)[0])
    assert regions(ledger.asked(0)) == [A, C]


def test_an_exchange_for_a_region_of_the_query_changes_nothing(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B))
    with pytest.raises(LedgerError, match=r"was asked for before"):
        ledger.exchange(ledger.asked(0)[0], query(B)[0])
    assert regions(ledger.asked(0)) == [A, B]


def test_a_query_is_withdrawn_only_while_nobody_was_given_anything(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B))
    assert ledger.withdraw_query(0)
    assert ledger.asked(0) == []
    ledger.record_region_query(0, query(B, A))
    ledger.reserve_next(0, "anna", seconds=0.0)  # its time is up, but somebody may be drawing
    assert not ledger.withdraw_query(0)
    assert regions(ledger.asked(0)) == [B, A]


def test_an_answer_comes_back_and_ends_the_reservation(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B))
    ledger.reserve_next(0, "anna", seconds=60)
    submit(ledger, "s.xml", answer(A, ("Tumor", SQUARE), ("Stroma", TALL), labels=7))
    assert [(one.answered, one.reserved_by) for one in ledger.asked(0)] == [(True, None), (False, None)]
    (back,) = ledger.answers()
    assert (back.region, back.purpose, back.cost_labels, back.cost_minutes) == (A, "train", 7.0, 0.5)
    assert [
        (name, geometry.equals(shape)) for (name, geometry), shape in zip(back.shapes, (SQUARE, TALL), strict=True)
    ] == [
        ("Tumor", True),
        ("Stroma", True),
    ]
    table = ledger.table("labels")
    assert table["sample_id"].tolist() == [A.id]
    assert table["cost_labels"].tolist() == [7.0]
    assert "Stroma" in table.iloc[0].tolist()  # 9 px against 4


def test_a_file_submitted_again_replaces_what_it_said(ledger: RegionLedger) -> None:
    ledger.record_region_query(0, query(A, B))
    submit(ledger, "s.xml", answer(A, ("Tumor", SQUARE)), answer(B))
    submit(ledger, "s.xml", answer(B, ("Stroma", TALL)), sha256="1")
    assert [one.answered for one in ledger.asked(0)] == [False, True]
    assert [(one.region, [name for name, _ in one.shapes]) for one in ledger.answers()] == [(B, ["Stroma"])]
    assert ledger.submissions()["s.xml"].sha256 == "1"
    assert len(ledger.table("labels")) == 1


def test_the_newest_submission_counts_and_the_older_one_comes_back_when_it_is_deleted(ledger: RegionLedger) -> None:
    submit(ledger, "old.xml", answer(A, ("Tumor", SQUARE)))
    submit(ledger, "new.xml", answer(A, ("Stroma", SQUARE)))
    assert [one.shapes[0][0] for one in ledger.answers()] == ["Stroma"]
    assert list(ledger.submissions()) == ["old.xml", "new.xml"]
    submit(ledger, "old.xml", answer(A, ("Tumor", TALL)))  # now it is the newer one
    assert [one.shapes[0][0] for one in ledger.answers()] == ["Tumor"]
    assert ledger.forget_submission("old.xml")
    assert [one.shapes[0][0] for one in ledger.answers()] == ["Stroma"]
    assert ledger.forget_submission("new.xml")
    assert not ledger.forget_submission("new.xml")
    assert ledger.answers() == []
    assert len(ledger.table("labels")) == 0


def test_a_negative_region_is_an_answer_with_a_name_for_reports(ledger: RegionLedger) -> None:
    submit(ledger, "s.xml", answer(A, labels=0.0))
    assert ledger.answers()[0].shapes == ()
    assert NOTHING_DRAWN in ledger.table("labels").iloc[0].tolist()


def test_what_does_not_count_is_kept_with_the_submission(ledger: RegionLedger) -> None:
    ledger.record_submission(
        "s.xml", sha256="ab", slide="s.tif", client="anna", answers=(), set_aside={"Fat": 3}, problems=["crossed"]
    )
    submission = ledger.submissions()["s.xml"]
    assert submission[:4] == ("s.xml", "ab", "s.tif", "anna")
    assert (submission.set_aside, submission.problems) == ({"Fat": 3}, ("crossed",))
    assert submission.received_utc.endswith("+00:00")


def test_everything_is_there_after_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    with RegionLedger(path) as ledger:
        assert isinstance(ledger, RegionLedger)
        ledger.record_region_query(0, query(A, B))
        ledger.reserve_next(0, "anna", seconds=60, now_s=1000.0)
        submit(ledger, "s.xml", answer(B, ("Tumor", SQUARE)))
        before = (ledger.asked(), ledger.answers(), ledger.submissions())
    with RegionLedger(path) as ledger:
        assert isinstance(ledger, RegionLedger)
        assert (ledger.asked(), ledger.answers(), ledger.submissions()) == before


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerError, match=r"l\.sqlite"):
        RegionLedger(path)


def test_another_file_is_no_ledger_and_a_runs_ledger_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "notes.sqlite").write_text("no database at all, but long enough to be looked at as one" * 4)
    with pytest.raises(LedgerError, match="is not a ledger"):
        RegionLedger(tmp_path / "notes.sqlite")
    with Ledger(tmp_path / "run.sqlite") as ledger:
        ledger.begin({"task": "tissue"})
    with RegionLedger(tmp_path / "run.sqlite") as regions:
        assert regions.submissions() == {}
        assert regions.info()["task"] == "tissue"
