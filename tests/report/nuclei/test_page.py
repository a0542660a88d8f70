# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.report.html_page import EVIL, Page
from tests.report.nuclei.conftest import write_predictions
from tral_monai.errors import LedgerError
from tral_monai.report.nuclei.page import render_report, write_report
from tral_monai.report.nuclei.run_data import NucleusRunData

MakeRun = Callable[..., NucleusRunData]


def complete_run(make_run: MakeRun, picture: Path, name: str = "run", **changes: object) -> NucleusRunData:
    """A run with everything on its page: pictures, predictions of round 1 and features of round 2."""
    run = make_run(name, image=picture, **changes)
    write_predictions(run, 1, [(0, 1, 2, 4, 8, run.classes[0], 0.9)])
    folder = run.folder / "rounds" / "round_002"
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).normal(size=(6, 3))
    answers = np.array([run.classes[0]] * 3 + ["unknown"] * 3)
    np.savez(folder / "roi_features.npz", features=x, answer=answers, prototypes=x[[0, 4]])
    return run


def test_figures_of_the_small_run_stand_on_the_page(make_run: MakeRun, picture: Path) -> None:
    page = Page(render_report(complete_run(make_run, picture)))
    # Scores of the last round, change, nuclei that its model was trained on.
    assert page.row("Tum") == ["Tum", "0.60 (+0.30)", "5"]
    assert page.row("Lym") == ["Lym", "0.40 (+0.30)", "4"]
    assert page.row("mAP@0.5") == ["mAP@0.5", "0.50 (+0.30)", "9"]
    assert page.row("any known nucleus") == ["any known nucleus", "0.70 (+0.30)", "9"]
    tables = {table[0][1].strip(): [[cell.strip() for cell in row] for row in table] for table in page.tables if table}
    queries = next(table for table in page.tables if "ignored" in table[0])
    assert [[cell.strip() for cell in row] for row in queries[1:]] == [
        ["to begin with", "2", "4", "1", "0", "80%", "64%", "2.0", "1.5"],
        ["1", "2", "4", "1", "1", "80%", "56%", "2.0", "1.2"],
        ["2", "1", "1", "2", "0", "33%", "25%", "1.0", "0.5"],
    ]
    assert tables["1"][1:] == [["detections", "1", "2", "3"], ["per unknown nucleus", "0.25", "0.50", "0.75"]]
    assert page.row("all") == ["all", "5", "14", "1.4", "", "", "5", "4", "4"]
    for text in (
        "Open-set setting 2+1. Known: Tum, Lym. Unknown: Mac.",
        "answered: 2 known, 1 unknown",
        "predicted with score ≥ 0.5: 1",
    ):
        assert text in page.text
    assert "auxiliary.pt (prototype)" in page.text
    assert "abc123def456" in page.text


def test_a_page_needs_nothing_from_outside(make_run: MakeRun, picture: Path) -> None:
    run = complete_run(make_run, picture)
    html = render_report(run, [make_run("b", strategy="random")])
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html
    page = Page(html)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert len(page.all("img")) == 5  # detection, comparison, queries, features, unknown
    assert len(page.all("image")) == 3
    for attributes in page.all("img"):
        assert attributes["alt"]
        head, _, data = attributes["src"].partition(";base64,")
        assert head == "data:image/svg+xml"
        ElementTree.fromstring(base64.b64decode(data))
    for attributes in page.all("image"):
        assert attributes["href"].startswith("data:image/jpeg;base64,")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for name in ("a", "use") for attributes in page.all(name)]
    assert links
    assert all(link.removeprefix("#") in ids for link in links)


def test_names_from_the_run_are_shown_and_never_run(make_run: MakeRun, picture: Path) -> None:
    changes = {"classes": [f"Tum{EVIL}", "Lym & co"], "info": {"versions": {EVIL: EVIL}, "note": EVIL}}
    run = complete_run(
        make_run,
        picture,
        f"a{EVIL.replace('/', '')}",
        strategy=f"mine{EVIL}",
        reason=f"because{EVIL}",
        slide=f"field{EVIL}.png",
        **changes,
    )
    other = make_run("b", strategy=EVIL, classes=changes["classes"])
    page = Page(render_report(run, [other]))
    assert page.all("script") == []
    assert not any("onerror" in attributes for _, attributes in page.elements)
    for text in (f"mine{EVIL}", f"field{EVIL}.png", f"because{EVIL}", f"Tum{EVIL}", "Lym & co"):
        assert text in page.text


def test_the_same_ledger_gives_the_same_page(make_run: MakeRun, picture: Path) -> None:
    run = complete_run(make_run, picture)
    first = render_report(run)
    assert render_report(NucleusRunData.from_folder(run.folder)) == first
    assert str(run.folder.parent) not in first


def test_a_run_without_any_evaluation(make_run: MakeRun) -> None:
    page = Page(render_report(make_run(scores={}, queried={}, stages=[(1, "ROUND_STARTED")])))
    assert "No round has been evaluated yet" in page.text
    assert "Round 1 was begun but not completed (last stage: round started)" in page.text
    assert "No query has been made yet" in page.text
    assert "No detections on unknown nuclei have been counted yet" in page.text
    assert page.all("img") == []


def test_a_run_killed_between_query_and_answers(make_run: MakeRun, picture: Path) -> None:
    run = make_run(image=picture, scores={(1, "test"): 0.2}, answered=[], queried={1: [0, 1]}, stages=[(1, "QUERIED")])
    page = Page(render_report(run))
    assert "2 still without an answer." in page.text
    assert "2 fields of round 1 still wait for answers." in page.text
    assert page.text.count("no answer yet") == 4  # above each picture and below it
    assert len(page.all("image")) == 2


def test_undefined_scores_have_a_dash(make_run: MakeRun) -> None:
    nowhere = {(r, "test"): float("nan") for r in (1, 2)}
    page = Page(render_report(make_run(scores=nowhere)))
    dash = "\N{EN DASH}"
    assert page.row("Tum")[1] == f"{dash} ({dash})"
    assert re.search(r"\bnan\b", page.text.lower()) is None


def test_comparison_with_another_strategy(make_run: MakeRun) -> None:
    low = {(1, "test"): 0.1, (2, "test"): 0.2, (3, "test"): 0.3}
    runs = [make_run(f"o{i}", seed=i) for i in (0, 1)]
    rest = [
        make_run(f"r{i}", seed=i, strategy="random", scores={k: v + i / 50 for k, v in low.items()}) for i in (0, 1)
    ]
    page = Page(render_report(runs[0], [runs[1], *rest]))
    assert "Compared are osal_nd (o0, o1), random (r0, r1)." in " ".join(page.text.split())
    rows = next(table for table in page.tables if "known asked" in table[0])[1:]
    assert [" ".join(cell.split()) for cell in rows[0]][:3] == ["osal_nd", "2", "50.0 % ± 0.0"]
    assert [" ".join(cell.split()) for cell in rows[1]][:3] == ["random", "2", "31.0 % ± 1.4"]
    difference = next(table for table in page.tables if table[0][-1] == "area, minutes" and len(table[0]) == 5)
    assert difference[1][0] == "osal_nd"
    assert difference[1][1].startswith("+19.0")  # 50 - 31 points
    assert "to" in difference[1][1]


def test_comparison_before_anything_can_be_compared(make_run: MakeRun) -> None:
    page = Page(render_report(make_run("a"), [make_run("b", scores={}, queried={})]))
    assert "Fewer than two of the runs have been evaluated" in page.text


def test_features_that_cannot_be_read_are_told(make_run: MakeRun) -> None:
    run = make_run()
    (run.folder / "rounds" / "round_001").mkdir(parents=True)
    (run.folder / "rounds" / "round_001" / "roi_features.npz").write_bytes(b"PK\x03\x04 nonsense")
    assert "No picture of the features: round_001/roi_features.npz cannot be read" in Page(render_report(run)).text


def test_write_report(make_run: MakeRun, tmp_path: Path) -> None:
    run, other = make_run("a"), make_run("b", strategy="random")
    assert write_report([run.folder]) == run.folder / "report.html"
    path = write_report([run.folder, other.folder], tmp_path / "new" / "r.html")
    assert "Compared with other runs" in path.read_text(encoding="utf-8")
    with pytest.raises(LedgerError, match=r"no ledger\.sqlite"):
        write_report([tmp_path])
