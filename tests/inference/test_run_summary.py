# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from tral_monai.inference.run_summary import run_summary
from tral_monai.inference.slide_writer import SlideResult


def result(name: str, status: Any = "mapped", *, tiles: int = 5, lost: int = 0) -> SlideResult:
    found = {"tissue_tiles": tiles, "not_analysed": {"tiles": lost}} if status != "failed" else {}
    return SlideResult(name=name, stem=name, status=status, record={"result": found} if found else {})


def test_a_good_run_is_one_line() -> None:
    assert run_summary([result("a"), result("b", "kept")], 2) == [
        "2 of 2 slides: 1 mapped, 1 kept from earlier runs, 0 failed"
    ]


def test_what_deserves_a_look_is_named() -> None:
    results = [result("a", lost=3), result("b", "failed"), result("c", tiles=0), result("d", "kept", lost=1)]
    assert run_summary(results, 6) == [
        "4 of 6 slides: 2 mapped, 1 kept from earlier runs, 1 failed",
        "failed: b",
        "nothing to look at (no tissue?): c",
        "not analysed in part, because it cannot be decoded: a, d",
        "the run ended early; the same command goes on where it stopped",
    ]


def test_long_lists_are_cut() -> None:
    lines = run_summary([result(f"s{i}", "failed") for i in range(13)], 13)
    assert lines[1] == "failed: s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 and 3 more"


def test_images_count_tiles_without_tissue() -> None:
    image = SlideResult(name="f.png", stem="f", record={"result": {"tiles": 0}})
    assert run_summary([image], 1)[1] == "nothing to look at (no tissue?): f.png"
