# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.report.html_page import EVIL, Page
from tral_monai.errors import LedgerError
from tral_monai.report.page import balance, render_report, split_line, write_report
from tral_monai.report.run_data import RunData

MakeRun = Callable[..., RunData]


@pytest.fixture(scope="module")
def small_html(small_run: RunData) -> str:
    return render_report(small_run)


def test_figures_of_the_small_run_stand_on_the_page(small_html: str) -> None:
    page = Page(small_html)
    assert page.row("Blood") == ["Blood", "0.74 (+0.24)", "10", "0.84 (+0.18)", "10"]
    assert page.row("macro average") == ["macro average", "0.81 (+0.18)", "30", "0.85 (+0.15)", "20"]
    assert page.row("micro average") == ["micro average", "0.83 (+0.17)", "30", "0.85 (+0.15)", "20"]
    assert page.row("asked for") == ["asked for", "3", "1"]
    assert page.row("of these, right") == ["of these, right", "2", "1"]
    assert page.row("labels given") == ["labels given", "2", "2"]
    assert page.row("to begin with") == ["to begin with", "4", "2.0", "4", "2", "2"]
    assert page.row("all") == ["all", "8", "4.0", "", "4", "4"]
    assert "3 of 4 turned out to be of the class that was asked for" in page.text
    assert "wrong guess" in page.text
    assert "abc123def456" in page.text
    assert f"{2:064x}" in page.text
    # Rows of the confusion matrices are percentages of the truth, with counts: test 7 and 3 of 10, 2 and 18 of 20.
    confusion = next(table for table in page.tables if table[0][0].startswith("true"))
    assert confusion[1:] == [["Blood", "70%7", "30%3"], ["Stroma", "10%2", "90%18"]]


def test_a_page_needs_nothing_from_outside(make_run: MakeRun, picture: Path) -> None:
    html = render_report(make_run("a", slide_path=picture), [make_run("b", strategy="random")])
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html
    page = Page(html)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    images = page.all("img") + page.all("image")
    assert len(images) == 4 + 2 * 4 + 1  # charts, two pictures of each tile, one thumbnail
    for attributes in images:
        assert attributes.get("src", attributes.get("href", "")).startswith(("data:image/svg", "data:image/jpeg"))
    for attributes in page.all("img"):
        assert attributes["alt"]
    for attributes in page.all("img"):
        head, _, data = attributes["src"].partition(";base64,")
        if head.endswith("svg+xml"):
            ElementTree.fromstring(base64.b64decode(data))


def test_contents_lead_to_sections(small_html: str) -> None:
    page = Page(small_html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert links
    assert all(link.removeprefix("#") in ids for link in links)


def test_names_from_the_run_are_shown_and_never_run(make_run: MakeRun, picture: Path) -> None:
    run = make_run(
        f"a{EVIL.replace('/', '')}",
        classes=[f"Blood{EVIL}", "Stroma & co"],
        strategy=f"mine{EVIL}",
        slide=f"slide{EVIL}.png",
        slide_path=picture,
        reason=f"because{EVIL}",
        info={"versions": {EVIL: EVIL}, "config": {EVIL: EVIL}, "note": EVIL},
    )
    page = Page(render_report(run, [make_run("b", classes=[f"Blood{EVIL}", "Stroma & co"], strategy=EVIL)]))
    assert page.all("script") == []
    assert not any("onerror" in attributes for _, attributes in page.elements)
    for text in (f"mine{EVIL}", f"slide{EVIL}.png", f"because{EVIL}", "Stroma & co"):
        assert text in page.text


def test_the_same_ledger_gives_the_same_page(small_run: RunData, small_html: str) -> None:
    assert render_report(RunData.from_folder(small_run.folder)) == small_html


def test_one_round(make_run: MakeRun) -> None:
    run = make_run(confusions={(1, "val"): [[6, 4], [2, 8]]}, asked=[], stages=[(1, "ROUND_COMPLETED")])
    page = Page(render_report(run))
    assert "One round cannot say what more labels bring" in page.text
    assert page.row("Blood") == ["Blood", "0.67 (+0.00)", "10"]
    assert "No query has been made" in page.text


def test_a_run_killed_in_its_second_round(make_run: MakeRun) -> None:
    confusions = {(1, "val"): [[6, 4], [2, 8]], (1, "test"): [[5, 5], [5, 15]]}
    stages = [(1, "ROUND_COMPLETED"), (2, "ROUND_STARTED"), (2, "TRAINED")]
    page = Page(render_report(make_run(confusions=confusions, stages=stages)))
    assert "Round 2 was begun but not completed (last stage: trained)" in page.text
    assert "The scores below are those up to round 1." in page.text


def test_a_run_killed_between_query_and_labels(make_run: MakeRun) -> None:
    confusions = {(1, "val"): [[6, 4], [2, 8]]}
    run = make_run(confusions=confusions, given=None, stages=[(1, "EVALUATED"), (1, "QUERIED")])
    page = Page(render_report(run))
    assert "Round 1 was begun but not completed (last stage: queried)" in page.text
    assert "4 still without an answer." in page.text
    assert page.text.count("no answer yet") == 4


def test_a_run_without_any_evaluation(make_run: MakeRun) -> None:
    page = Page(render_report(make_run(confusions={}, asked=[], stages=[(1, "ROUND_STARTED")])))
    assert "No round has been evaluated yet" in page.text
    assert page.all("img") == []


def test_slides_that_are_gone_are_said_to_be_gone(make_run: MakeRun, tmp_path: Path) -> None:
    html = render_report(make_run(slide_path=tmp_path / "private" / "slide.png"))
    assert "No pictures of slide slide.png: its file is no longer where it was." in Page(html).text
    assert "private" not in html


def test_an_absent_class_has_a_dash_and_an_explanation(make_run: MakeRun) -> None:
    confusions = {(1, "val"): [[0, 0], [0, 8]], (2, "val"): [[0, 0], [0, 9]]}
    page = Page(render_report(make_run(confusions=confusions)))
    dash = "\N{EN DASH}"
    assert page.row("Blood") == ["Blood", f"{dash} ({dash})", "0"]
    assert "so its F1 is undefined" in page.text
    assert re.search(r"\bnan\b", page.text.lower()) is None


def test_defined_scores_need_no_explanation(small_html: str) -> None:
    assert "so its F1 is undefined" not in small_html


def test_a_query_without_classes(make_run: MakeRun) -> None:
    page = Page(render_report(make_run(asked=[None] * 4, strategy="random")))
    assert "This strategy asks for tiles, not for classes." in page.text
    assert "wrong guess" not in page.text


def test_comparison_table(make_run: MakeRun) -> None:
    weak = {(1, "test"): [[5, 5], [10, 10]], (2, "test"): [[5, 5], [10, 10]]}
    page = Page(render_report(make_run("a"), [make_run("b", strategy="random", confusions=weak)]))
    # Area: mean of 0.625 and 0.8074; then macro, micro, Blood, Stroma at 8 labels.
    assert page.row("tri_al_quota") == ["tri_al_quota", "1", "0.716", "0.81", "0.83", "0.74", "0.88"]
    assert page.row("random") == ["random", "1", "0.486", "0.49", "0.50", "0.40", "0.57"]


def test_comparison_before_anything_can_be_compared(make_run: MakeRun) -> None:
    page = Page(render_report(make_run("a"), [make_run("b", confusions={}, asked=[])]))
    assert "Fewer than two of the runs have been evaluated" in page.text


def test_balance_by_hand(make_run: MakeRun) -> None:
    rounds, shares = balance(make_run(given=["Blood", "Blood", "Blood", "Stroma"]))
    assert rounds == [1, 2]
    assert shares == [[0.5, 0.5], [5 / 8, 3 / 8]]


def test_folders_of_the_machine_are_not_told(small_run: RunData, small_html: str) -> None:
    assert "run --slide …/slide.png" in small_html
    assert str(small_run.folder.parent) not in small_html
    assert "/home/someone" not in small_html


def test_write_report_replaces_the_file_in_one_step(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    path = write_report([run.folder])
    assert path == run.folder / "report.html"
    first = path.read_text(encoding="utf-8")
    os.link(path, tmp_path / "old.html")
    with sqlite3.connect(run.folder / "ledger.sqlite") as connection:
        connection.execute("UPDATE run SET value = '\"other\"' WHERE key = 'strategy'")
    write_report([run.folder])
    assert (tmp_path / "old.html").read_text(encoding="utf-8") == first  # a reader of the old file is not disturbed
    assert "Active-learning report: other" in path.read_text(encoding="utf-8")
    assert sorted(p.name for p in run.folder.iterdir()) == ["ledger.sqlite", "report.html"]


def test_write_report_elsewhere(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run("a"), make_run("b", strategy="random")
    path = write_report([run.folder, other.folder], tmp_path / "new" / "r.html")
    assert path.is_file()
    assert not (run.folder / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    shutil.copytree(run.folder, tmp_path / "copy")
    (tmp_path / "copy" / "ledger.sqlite").unlink()
    with pytest.raises(LedgerError, match=r"no ledger\.sqlite"):
        write_report([run.folder, tmp_path / "copy"])


def test_a_sentence_begins_with_a_capital_but_for_a_measure() -> None:
    assert split_line("Next: label stroma.") == ("Next", "Label stroma.")
    assert split_line("Reached: mAP@0.5 0.30 on test.") == ("Reached", "mAP@0.5 0.30 on test.")
