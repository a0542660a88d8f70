# SPDX-License-Identifier: Apache-2.0
"""The report of a run as one HTML text that needs nothing else: no script, no font, no address."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from tral_monai.atomic_file import atomic_path
from tral_monai.report import charts
from tral_monai.report.advice import advise
from tral_monai.report.comparison import compare
from tral_monai.report.overlays import read_overlays
from tral_monai.report.palette import cell_color, chart_styles, ink_on, map_colors
from tral_monai.report.pictures import SlidePictures, slide_sources, svg_uri
from tral_monai.report.provenance import provenance
from tral_monai.report.run_data import RunData
from tral_monai.report.summary import UNKNOWN, count, duration, number, score, three_lines
from tral_monai.report.tiles import rarely_found, round_tiles, slide_maps

SIMULATED_ORACLES = ("auto", "archive", "class_request", "pseudo_label")
TREND_WORDS = {
    "rising": "rising",
    "unclear": "perhaps rising",
    "hidden": "too noisy",
    "flat": "standing still",
    "falling": "falling",
    "unknown": "one round only",
}


@dataclass(frozen=True)
class ScoreRow:
    """F1 of a class (or an average) on each split: (first, last) in 0..1, the sampling error of the last, tiles."""

    name: str
    average: bool
    first: dict[str, float]
    last: dict[str, float]
    tiles: dict[str, int | None]


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion matrix ready to be shown: split, round, and per true class the cells (count, share of the row)."""

    split: str
    round: int
    rows: tuple[tuple[str, int, tuple[tuple[int, float], ...]], ...]


@dataclass(frozen=True)
class CostRow:
    """What one round cost: labels and minutes, and the labels in all so far."""

    round: int
    labels: float
    minutes: float
    total: float
    declined: int
    per_class: tuple[int, ...]


def render_report(run: RunData, others: Sequence[RunData] = ()) -> str:
    """The report of ``run``, with ``others`` laid over its curves, as HTML text.

    The same ledgers and slides give the same text: it holds no time of its own making.

    Args:
        run: the run to report.
        others: runs to compare with; those of the same strategy count as further seeds.

    Raises:
        LedgerError: the runs do not share their classes.
    """
    jinja = environment()
    jinja.filters.update(PAGE_FILTERS)
    jinja.globals.update(count=count, ink_on=ink_on, cell_color=cell_color)
    return jinja.get_template("report.html").render(**_context(run, others))


def environment(*loaders: jinja2.BaseLoader) -> jinja2.Environment:
    """Templates that escape all they are given and refuse unknown names, ours after those of ``loaders``."""
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([*loaders, jinja2.PackageLoader("tral_monai.report")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_report(run_dirs: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report of the first run folder, compared with the others.

    Args:
        run_dirs: folders of runs, the one to report first.
        output: the HTML file; ``report.html`` in the first folder where None.

    Returns:
        The file's path. It is replaced in one step.

    Raises:
        LedgerError: a folder holds no run, or the runs do not share their classes.
    """
    runs = [RunData.from_folder(folder) for folder in run_dirs]
    path = Path(output) if output is not None else runs[0].folder / "report.html"
    html = render_report(runs[0], runs[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def _context(run: RunData, others: Sequence[RunData]) -> dict[str, Any]:
    styles = chart_styles(run.classes)
    evaluated = run.evaluated_rounds
    comparison = compare([run, *others]) if others else None
    rounds, shares = balance(run)
    scores = _scores(run)
    with SlidePictures(slide_sources(run.folder, run.answers["sample_id"].tolist())) as pictures:
        tiles = round_tiles(run, pictures)
        maps, maps_left_out = slide_maps(run, pictures, styles)
        problems = dict(sorted(pictures.problems.items()))
    overlays, overlays_left_out = read_overlays(run.folder)
    return {
        "run": run,
        "css": Markup(template_text("report.css")),  # our own file, nothing of the run's in it
        "lines": [split_line(line) for line in three_lines(run, others)],
        "styles": styles,
        "map_colors": map_colors(run.classes, run.settings.get("class_colors")),
        "last": evaluated[-1] if evaluated else None,
        "scores": scores,
        "undefined_scores": any(math.isnan(value) for row in scores for value in row.last.values()),
        "overall_chart": charts.overall_chart(run) if evaluated else None,
        "class_chart": charts.class_chart(run) if evaluated else None,
        "comparison": comparison,
        "comparison_chart": charts.comparison_chart(comparison) if comparison is not None else None,
        "compared": bool(others),
        "balance_rounds": rounds,
        "balance_shares": shares,
        "balance_chart": charts.balance_chart(run, rounds, np.array(shares)) if rounds else None,
        "full_shares": None if run.full_counts is None else run.full_counts / max(run.full_counts.sum(), 1),
        "confusions": _confusions(run),
        "tiles": tiles,
        "rarely_found": rarely_found(tiles),
        "maps": maps,
        "maps_left_out": maps_left_out,
        "problems": problems,
        "overlays": overlays,
        "overlays_left_out": overlays_left_out,
        "advice": advise(run),
        "trend_words": TREND_WORDS,
        "simulated": run.settings.get("oracle") in SIMULATED_ORACLES,
        "costs": _costs(run),
        "evaluation_tiles": _evaluation_tiles(run),
        "provenance": provenance(run),
    }


def balance(run: RunData) -> tuple[list[int], list[list[float]]]:
    """Rounds and the share of each class in the training set of each: the paper's delta, shares (n, C) summing to 1.

    Rounds whose training set holds no label of any class are left out.
    """
    last = max([*run.evaluated_rounds, *(int(r) for r in run.tables["models"]["round"])], default=0)
    rounds, shares = [], []
    for round_ in range(1, last + 1):
        counts = run.class_counts(round_)
        if counts.sum() > 0:
            rounds.append(round_)
            shares.append([float(share) for share in counts / counts.sum()])
    return rounds, shares


def _scores(run: RunData) -> list[ScoreRow]:
    rows = []
    for title, name, average in [
        *((name, f"{name}_f1", False) for name in run.classes),
        ("macro average", "f1_macro", True),
        ("micro average", "f1_micro", True),
    ]:
        first: dict[str, float] = {}
        last: dict[str, float] = {}
        tiles: dict[str, int | None] = {}
        for split in run.splits:
            curve = run.curve(name, split)
            first[split] = float(curve.values[0]) if len(curve.values) else math.nan
            last[split] = float(curve.values[-1]) if len(curve.values) else math.nan
            matrix = run.confusion(int(curve.rounds[-1]), split) if len(curve.rounds) else None
            if matrix is None:
                tiles[split] = None
            else:
                tiles[split] = int(matrix.sum() if average else matrix[run.classes.index(title)].sum())
        rows.append(ScoreRow(title, average, first, last, tiles))
    return rows


def _confusions(run: RunData) -> list[ConfusionTable]:
    tables = []
    for split in sorted(run.splits, key=lambda split: split != run.main_split):
        curve = run.curve("f1_macro", split)
        matrix = run.confusion(int(curve.rounds[-1]), split) if len(curve.rounds) else None
        if matrix is None:
            continue
        rows = tuple(
            (name, int(row.sum()), tuple((int(n), float(n / row.sum()) if row.sum() else math.nan) for n in row))
            for name, row in zip(run.classes, matrix, strict=True)
        )
        tables.append(ConfusionTable(split, int(curve.rounds[-1]), rows))
    return tables


def _costs(run: RunData) -> list[CostRow]:
    labels = run.tables["labels"]
    rows = []
    for round_ in sorted(int(value) for value in labels["round"].unique()):
        own = labels[labels["round"] == round_]
        given = own["class_given"].value_counts()
        rows.append(
            CostRow(
                round=round_,
                labels=run.labels_in(round_),
                minutes=float(own["cost_minutes"].sum()),
                total=run.labels_before(round_ + 1),
                declined=int(own["class_given"].isna().sum()),
                per_class=tuple(int(given.get(name, 0)) for name in run.classes),
            )
        )
    return rows


def _evaluation_tiles(run: RunData) -> dict[str, int]:
    return {table.split: sum(total for _, total, _ in table.rows) for table in _confusions(run)}


def template_text(name: str) -> str:
    """The text of one of our own template files."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def split_line(line: str) -> tuple[str, str]:
    """One of the three lines as its first word and the sentence after it, whose first word keeps capitals (mAP)."""
    head, _, rest = line.partition(": ")
    return head, rest[:1].upper() + rest[1:] if rest.split(" ", 1)[0].islower() else rest


def _percent(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.0%}"


def _moment(iso: str) -> str:
    """An ISO time as a person writes it; the zone is named only once, in the caption or the sentence around it."""
    try:
        return f"{datetime.datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return iso


def _signed(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:+.2f}"


PAGE_FILTERS: dict[str, Callable[..., str]] = {
    "score": score,
    "number": number,
    "duration": duration,
    "percent": _percent,
    "signed": _signed,
    "svg_uri": svg_uri,
    "moment": _moment,
}
"""What templates write figures with."""
