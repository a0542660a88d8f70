# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tral_monai.report.palette import chart_styles
from tral_monai.report.pictures import SlidePictures, slide_sources
from tral_monai.report.run_data import RunData
from tral_monai.report.tiles import ClassTally, RoundTiles, choose, rarely_found, round_tiles, slide_maps

MakeRun = Callable[..., RunData]


def pictures_of(run: RunData) -> SlidePictures:
    return SlidePictures(slide_sources(run.folder, run.answers["sample_id"].tolist()))


def test_classes_take_turns_and_ranks_decide_within_a_class() -> None:
    query = pd.DataFrame({"rank": range(7), "class_asked": ["A", "A", "A", "A", "B", "B", None]})
    assert choose(query, 3)["rank"].tolist() == [0, 4, 6]
    assert choose(query, 5)["rank"].tolist() == [0, 1, 4, 5, 6]
    assert choose(query, 99)["rank"].tolist() == list(range(7))


def test_tally_and_wrong_guesses_by_hand(make_run: MakeRun, picture: Path) -> None:
    run = make_run(slide_path=picture)
    with pictures_of(run) as pictures:
        (round_,) = round_tiles(run, pictures)
    assert (round_.round, round_.total, round_.answered, round_.more, round_.declined) == (1, 4, 4, 0, 0)
    assert (round_.asked_with_class, round_.right_guesses) == (4, 3)
    # Asked: three Blood, one Stroma. Given: Blood, Stroma, Blood, Stroma.
    assert [(t.name, t.asked, t.right, t.given) for t in round_.tally] == [("Blood", 3, 2, 2), ("Stroma", 1, 1, 2)]
    assert [card.wrong_guess for card in round_.cards] == [False, True, False, False]
    first = round_.cards[0]
    assert (first.slide, first.xy_level0, first.score, first.reason) == ("slide.png", (300, 200), 0.9, "most uncertain")
    assert first.picture is not None
    assert first.context is not None


def test_classes_that_the_model_cannot_find_are_named() -> None:
    def round_(*tally: ClassTally, answered: int = 10) -> RoundTiles:
        return RoundTiles(1, (), 10, answered, 10, 0, 0, tally)

    first = round_(ClassTally("Blood", 4, 1, 2), ClassTally("Stroma", 4, 1, 5), ClassTally("Fat", 2, 0, 0))
    second = round_(ClassTally("Blood", 4, 0, 2), ClassTally("Stroma", 4, 1, 5), ClassTally("Fat", 2, 0, 0))
    waiting = round_(*(ClassTally(name, 9, 0, 0) for name in ("Blood", "Stroma", "Fat")), answered=0)
    # Blood: 1 of 8; Stroma: 2 of 8, a quarter; Fat: too few asked; the last round has no answers yet.
    assert rarely_found([first, second, waiting]) == (ClassTally("Blood", 8, 1, 4),)
    assert rarely_found([]) == ()


def test_declined_and_unanswered_samples_are_no_wrong_guesses(make_run: MakeRun) -> None:
    run = make_run("declined", given=["Blood", None, None, "Stroma"])
    with pictures_of(run) as pictures:
        (round_,) = round_tiles(run, pictures)
    assert (round_.declined, round_.asked_with_class, round_.right_guesses) == (2, 2, 2)
    assert not any(card.wrong_guess for card in round_.cards)
    waiting = make_run("waiting", given=None)
    with pictures_of(waiting) as pictures:
        (round_,) = round_tiles(waiting, pictures)
    assert (round_.answered, round_.declined) == (0, 0)


def test_dots_lie_where_the_tiles_lie(make_run: MakeRun, picture: Path) -> None:
    run = make_run(slide_path=picture)
    styles = chart_styles(run.classes)
    with pictures_of(run) as pictures:
        (map_,), left_out = slide_maps(run, pictures, styles)
    assert left_out == []
    assert map_.thumbnail is not None
    scale = 1200 / 900  # the longer side becomes 900 px
    assert map_.thumbnail.downsample_level0 == pytest.approx(scale)
    assert [(dot.x, dot.y) for dot in map_.dots] == [(225, 150), (450, 150), (225, 450), (450, 450)]
    assert [dot.class_name for dot in map_.dots] == ["Blood", "Stroma", "Blood", "Stroma"]  # the classes given
    assert map_.dots[0].fill == styles["Blood"].color
    assert map_.dot_radius == 900 / 72


def test_without_slides_there_are_names_and_no_dots(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(slide_path=tmp_path / "gone.png")
    with pictures_of(run) as pictures:
        (map_,), _ = slide_maps(run, pictures, chart_styles(run.classes))
        (round_,) = round_tiles(run, pictures)
    assert map_.thumbnail is None
    assert map_.dots == ()
    assert map_.dot_radius == 0
    assert all(card.picture is None for card in round_.cards)
    assert "slide.png" in pictures.problems
