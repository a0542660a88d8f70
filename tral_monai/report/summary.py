# SPDX-License-Identifier: Apache-2.0
"""The run's CSV files, and what was learnt in three lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tral_monai.atomic_file import atomic_path
from tral_monai.report.advice import advise
from tral_monai.report.comparison import compare
from tral_monai.report.run_data import RunData

UNKNOWN = "\N{EN DASH}"  # for a figure that is not defined
QUERY_COLUMNS = ("round", "slide", "x_level0", "y_level0", "class_asked", "class_given", "score")


def summary_table(run: RunData) -> pd.DataFrame:
    """One row per evaluated round and split: round, split, labels, ``<class>_f1`` ..., f1_micro, f1_macro (0..1).

    ``labels`` are the labels that the round's model was trained on.
    """
    scores = [*(f"{name}_f1" for name in run.classes), "f1_micro", "f1_macro"]
    rows = [
        [round_, split, _whole(run.labels_before(round_)), *(run.metric(round_, split, name) for name in scores)]
        for round_ in run.evaluated_rounds
        for split in run.splits
        if len(run.curve("f1_macro", split).rounds) and round_ in run.curve("f1_macro", split).rounds
    ]
    return pd.DataFrame(rows, columns=["round", "split", "labels", *scores])


def query_table(run: RunData) -> pd.DataFrame:
    """Every sample asked for, in order: round, slide, x_level0, y_level0, class_asked, class_given, score."""
    return run.answers[list(QUERY_COLUMNS)]


def write_csvs(run: RunData, folder: str | Path) -> tuple[Path, Path]:
    """Write ``summary.csv`` and ``queries.csv``, each replaced in one step; returns their paths."""
    summary, queries = Path(folder) / "summary.csv", Path(folder) / "queries.csv"
    with atomic_path(summary) as part:
        summary_table(run).to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
    with atomic_path(queries) as part:
        query_table(run).to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    return summary, queries


def three_lines(run_data: RunData, others: Sequence[RunData] = ()) -> list[str]:
    """What the run taught: what was spent, what was reached, what to annotate next.

    Args:
        run_data: the run.
        others: runs to set it against, e.g. the same budget spent at random.

    Returns:
        Three sentences or short paragraphs of plain text.
    """
    return [_spent(run_data), _reached(run_data, others), _next(run_data)]


def _spent(run: RunData) -> str:
    initial, total = run.labels_in(0), run.labels_spent
    asked = len(set(run.tables["labels"]["round"]) - {0})
    line = f"Spent: {count(total, 'label')}"
    if asked:
        line += f" ({number(initial)} to begin with, {number(total - initial)} asked for in {count(asked, 'round')})"
    if run.minutes_spent > 0:
        line += f", about {duration(run.minutes_spent)} of annotation"
    return f"{line}. Strategy: {run.strategy}."


def _reached(run: RunData, others: Sequence[RunData]) -> str:
    split = run.main_split
    if split is None:
        return "Reached: nothing has been evaluated yet."
    curve = run.curve("f1_macro", split)
    if not len(curve.rounds):
        return f"Reached: no macro F1 was recorded on {split}."
    last = int(curve.rounds[-1])
    line = f"Reached: macro F1 {score(curve.values[-1])} on {split} with {count(curve.labels[-1], 'label')}"
    if len(curve.rounds) > 1:
        line += f" (from {score(curve.values[0])} with {number(curve.labels[0])})"
    line += f", micro F1 {score(run.metric(last, split, 'f1_micro'))}"
    known = [(run.metric(last, split, f"{name}_f1"), name) for name in run.classes]
    known = [(value, name) for value, name in known if not math.isnan(value)]
    if known:
        value, name = min(known)
        line += f"; weakest class {name} ({score(value)})"
    published = run.published_round
    if published is not None and published != last:
        line += f". model.pt is that of round {published} (macro F1 {score(run.metric(published, split, 'f1_macro'))})"
    comparison = compare([run, *others]) if others else None
    rivals = [] if comparison is None else [band for band in comparison.bands if band.strategy != run.strategy]
    if comparison is not None and comparison.common is not None and rivals:
        own = [band for band in comparison.bands if band.strategy == run.strategy]
        at = ", ".join(f"{band.strategy} {score(band.final[-1])}" for band in own + rivals)
        line += f". With the same {count(comparison.common[1], 'label')}: {at} (macro F1)"
    return f"{line}."


def _next(run: RunData) -> str:
    advice = advise(run)
    if advice is None:
        return "Next: nothing was evaluated on the validation set, so there is no advice yet."
    return f"Next: {advice.decision.sentence}"


def score(value: float) -> str:
    """An F1 with two decimals; a dash where it is undefined."""
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def number(value: float) -> str:
    """A count with thousands set apart; one decimal only where it is not whole."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def count(value: float, noun: str) -> str:
    """A count with its noun: ``1 label``, ``2 labels``."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def duration(minutes: float) -> str:
    """Minutes in the unit that a reader would use: ``45 minutes``, ``3.2 hours``."""
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return count(round(minutes), "minute")
    return f"{minutes / 60:.1f} hours"


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
