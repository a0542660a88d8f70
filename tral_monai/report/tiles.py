# SPDX-License-Identifier: Apache-2.0
"""The tiles that each round asked for: which of them are shown, what is said of them, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tral_monai.report.palette import ChartStyle, ink_on
from tral_monai.report.pictures import CONTEXT_MAGNIFICATION, TILE_MAGNIFICATION, SlidePictures, Thumbnail
from tral_monai.report.run_data import RunData

TILES_PER_ROUND = 12
TILES_IN_ALL = 120  # keeps the page at a few megabytes however many rounds there were
SLIDES_IN_ALL = 8
DOTS_PER_SLIDE = 400
THUMBNAIL_PX = 900
MANY_ASKED, RARELY = 5, 0.25


@dataclass(frozen=True)
class TileCard:
    """One tile that was asked for.

    Attributes:
        slide: file name of its slide.
        xy_level0: its centre in level-0 pixels.
        asked: the class that was asked for (for pseudo-labels: predicted), or None.
        given: the class that the annotator gave, or None.
        answered: whether there is an answer.
        wrong_guess: the answer is another class than the one asked for.
        score: the strategy's score; NaN where it gave none.
        reason: the strategy's reason, in its words.
        picture: the 40x tile as a data URI, or None.
        context: the 10x tile around the same centre as a data URI, or None.
    """

    slide: str
    xy_level0: tuple[int, int]
    asked: str | None
    given: str | None
    answered: bool
    wrong_guess: bool
    score: float
    reason: str
    picture: str | None
    context: str | None


@dataclass(frozen=True)
class ClassTally:
    """How many tiles of one class a round asked for, got back as this class, and got in all under this class."""

    name: str
    asked: int
    right: int
    given: int


@dataclass(frozen=True)
class RoundTiles:
    """The query of one round: its tiles on show, how many there were, and the tally per class."""

    round: int
    cards: tuple[TileCard, ...]
    total: int
    answered: int
    asked_with_class: int
    right_guesses: int
    declined: int
    tally: tuple[ClassTally, ...]

    @property
    def more(self) -> int:
        """Tiles that are not shown."""
        return self.total - len(self.cards)


@dataclass(frozen=True)
class Dot:
    """A queried tile on a thumbnail: position in thumbnail pixels, round, class, fill and ink as #rrggbb."""

    x: float
    y: float
    round: int
    class_name: str
    fill: str
    ink: str


@dataclass(frozen=True)
class SlideMap:
    """A slide's thumbnail with its queried tiles; ``thumbnail`` is None where the slide cannot be read."""

    slide: str
    thumbnail: Thumbnail | None
    dots: tuple[Dot, ...]
    total: int

    @property
    def dot_radius(self) -> float:
        """Radius of a dot in thumbnail pixels: large enough for its number, smaller where there are many."""
        if self.thumbnail is None:
            return 0.0
        per_side = 72.0 if len(self.dots) <= 60 else 96.0 if len(self.dots) <= 200 else 120.0
        return max(self.thumbnail.width, self.thumbnail.height) / per_side


def choose(query: pd.DataFrame, limit: int) -> pd.DataFrame:
    """At most ``limit`` rows of one round's query: the classes asked for take turns, each in order of rank.

    Taking only the first ranks would show one class where a strategy fills its quotas one after the other.
    """
    turn = query.groupby(query["class_asked"].fillna("")).cumcount()
    shown = query.assign(_turn=turn).sort_values(["_turn", "rank"], kind="stable").head(limit)
    return shown.drop(columns="_turn").sort_values("rank", kind="stable")


def round_tiles(run: RunData, pictures: SlidePictures) -> tuple[RoundTiles, ...]:
    """The queries of all rounds, with pictures of at most 12 tiles each (fewer where there are many rounds)."""
    answers = run.answers
    rounds = sorted(int(round_) for round_ in answers["round"].unique())
    limit = max(4, min(TILES_PER_ROUND, TILES_IN_ALL // max(len(rounds), 1)))
    result = []
    for round_ in rounds:
        query = answers[answers["round"] == round_]
        cards = tuple(_card(row, pictures) for row in choose(query, limit).itertuples(index=False))
        both = query[query["class_asked"].notna() & query["class_given"].notna()]
        right = both[both["class_asked"] == both["class_given"]]
        result.append(
            RoundTiles(
                round=round_,
                cards=cards,
                total=len(query),
                answered=int(query["answered"].sum()),
                asked_with_class=len(both),
                right_guesses=len(right),
                declined=int((query["answered"] & query["class_given"].isna()).sum()),
                tally=tuple(
                    ClassTally(
                        name,
                        int((query["class_asked"] == name).sum()),
                        int((right["class_asked"] == name).sum()),
                        int((query["class_given"] == name).sum()),
                    )
                    for name in run.classes
                ),
            )
        )
    return tuple(result)


def rarely_found(rounds: Sequence[RoundTiles]) -> tuple[ClassTally, ...]:
    """Classes that the model cannot find by itself: of five or more tiles asked for, fewer than a quarter were right.

    Returns:
        Their tallies over all rounds, in the order of the classes.
    """
    tallies = []
    for same in zip(*(round_.tally for round_ in rounds if round_.answered == round_.total), strict=True):
        asked, right, given = (sum(getattr(tally, name) for tally in same) for name in ("asked", "right", "given"))
        if asked >= MANY_ASKED and right < RARELY * asked:
            tallies.append(ClassTally(same[0].name, asked, right, given))
    return tuple(tallies)


def _card(row: object, pictures: SlidePictures) -> TileCard:
    values = row._asdict()  # type: ignore[attr-defined]  # pandas' namedtuple
    centre = (int(values["x_level0"]), int(values["y_level0"]))
    sample, slide = int(values["sample_id"]), str(values["slide"])
    asked, given = values["class_asked"], values["class_given"]
    return TileCard(
        slide=slide,
        xy_level0=centre,
        asked=asked,
        given=given,
        answered=bool(values["answered"]),
        wrong_guess=asked is not None and given is not None and asked != given,
        score=float("nan") if pd.isna(values["score"]) else float(values["score"]),
        reason="" if pd.isna(values["reason"]) else str(values["reason"]),
        picture=pictures.tile(sample, slide, centre, TILE_MAGNIFICATION),
        context=pictures.tile(sample, slide, centre, CONTEXT_MAGNIFICATION),
    )


def slide_maps(
    run: RunData, pictures: SlidePictures, styles: dict[str, ChartStyle]
) -> tuple[tuple[SlideMap, ...], Sequence[str]]:
    """Thumbnails of the slides with most queries, and the names of the slides left out.

    A dot has the colour of the class given (of the class asked where there is no answer yet) and its round's number.
    """
    answers = run.answers
    counts = answers["slide"].value_counts()
    ordered = sorted((str(name) for name in counts.index), key=lambda name: (-int(counts[name]), name))
    maps = []
    for slide in ordered[:SLIDES_IN_ALL]:
        rows = answers[answers["slide"] == slide]
        thumbnail = pictures.thumbnail(int(rows["sample_id"].iloc[0]), slide, max_px=THUMBNAIL_PX)
        dots: tuple[Dot, ...] = ()
        if thumbnail is not None:
            # Evenly spread over the query, so that no round is missing from the map.
            step = max(1, -(-len(rows) // DOTS_PER_SLIDE))
            dots = tuple(
                _dot(row, thumbnail, styles) for row in rows.sort_values("round").iloc[::step].itertuples(index=False)
            )
        maps.append(SlideMap(slide, thumbnail, dots, len(rows)))
    return tuple(maps), ordered[SLIDES_IN_ALL:]


def _dot(row: object, thumbnail: Thumbnail, styles: dict[str, ChartStyle]) -> Dot:
    values = row._asdict()  # type: ignore[attr-defined]  # pandas' namedtuple
    name = values["class_given"] or values["class_asked"]
    fill = styles[name].color if name in styles else "#666666"
    return Dot(
        x=round(values["x_level0"] / thumbnail.downsample_level0, 1),
        y=round(values["y_level0"] / thumbnail.downsample_level0, 1),
        round=int(values["round"]),
        class_name=name or "no class",
        fill=fill,
        ink=ink_on(fill),
    )
