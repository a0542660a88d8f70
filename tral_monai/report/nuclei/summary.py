# SPDX-License-Identifier: Apache-2.0
"""A nucleus run's CSV files, and what was learnt in three lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tral_monai.atomic_file import atomic_path
from tral_monai.report.nuclei.advice import next_step
from tral_monai.report.nuclei.comparison import compare
from tral_monai.report.nuclei.run_data import FP_ON_UNKNOWN, MAP50, NucleusRunData
from tral_monai.report.summary import count, duration, number, score

QUERY_COLUMNS = ("round", "rank", "sample_id", "slide", "x_level0", "y_level0", "score", "reason")
ANSWER_COLUMNS = ("boxes_drawn", "minutes", "known", "unknown", "ignored")


def summary_table(run: NucleusRunData) -> pd.DataFrame:
    """One row per evaluated round, quoted on `RunData.main_split` (the test set where there is one).

    Columns: round; images, boxes_drawn and minutes, which the round's model was trained on; map50, ``<class>_ap50`` of
    every known class and fp_on_unknown, which this model reached; known_queried, unknown_queried and purity of the
    query that was made with it: nuclei of known classes, nuclei ticked unknown, and the known ones' share of both.
    These three are empty where the round asked for nothing (the last one) or still waits for answers.
    """
    columns = [MAP50, *(f"{name}_ap50" for name in run.classes), FP_ON_UNKNOWN]
    names = ["round", "images", "boxes_drawn", "minutes", *columns, "known_queried", "unknown_queried", "purity"]
    split = run.main_split
    if split is None:
        return pd.DataFrame(columns=names)
    rows = []
    for round_ in run.curve(MAP50, split).rounds.tolist():
        found = run.queried.get(round_)
        rows.append(
            [
                round_,
                int(run.spent("images", round_)),
                run.spent("boxes", round_),
                run.spent("minutes", round_),
                *(run.metric(round_, split, name) for name in columns),
                *((None, None, math.nan) if found is None else (found.known, found.unknown, found.purity)),
            ]
        )
    table = pd.DataFrame(rows, columns=names)
    if (table["boxes_drawn"] % 1 == 0).all():
        table["boxes_drawn"] = table["boxes_drawn"].astype("int64")
    return table.astype({"known_queried": "Int64", "unknown_queried": "Int64"})


def query_table(run: NucleusRunData) -> pd.DataFrame:
    """Every field asked for, in order.

    Columns: round, rank, sample_id, slide, x_level0, y_level0, score, reason, and of the answer: boxes_drawn, minutes,
    known, unknown, ignored (nuclei); empty where there is none yet.
    """
    answers = run.nuclei["answer"]
    kinds = answers.where(~answers.isin(run.classes), "known")
    counts = pd.crosstab(run.nuclei["sample_id"], kinds).reindex(columns=["known", "unknown", "ignored"], fill_value=0)
    labels = run.tables["labels"].set_index("sample_id")[["cost_labels", "cost_minutes"]]
    found = labels.join(counts).rename(columns={"cost_labels": "boxes_drawn", "cost_minutes": "minutes"})
    found = found.fillna(0).astype(dict.fromkeys(("known", "unknown", "ignored"), "Int64"))
    table = run.tables["queries"].merge(found, left_on="sample_id", right_index=True, how="left")
    return table.sort_values(["round", "rank"])[[*QUERY_COLUMNS, *ANSWER_COLUMNS]].reset_index(drop=True)


def write_csvs(run: NucleusRunData, folder: str | Path) -> tuple[Path, Path]:
    """Write ``summary.csv`` and ``queries.csv``, each replaced in one step; returns their paths."""
    summary, queries = Path(folder) / "summary.csv", Path(folder) / "queries.csv"
    with atomic_path(summary) as part:
        summary_table(run).to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
    with atomic_path(queries) as part:
        query_table(run).to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    return summary, queries


def three_lines(run: NucleusRunData, others: Sequence[NucleusRunData] = ()) -> list[str]:
    """What the run taught: what was spent, what was reached, what comes next.

    Args:
        run: the run.
        others: runs to set it against, e.g. the same number of images at random.

    Returns:
        Three sentences or short paragraphs of plain text.
    """
    return [_spent(run), _reached(run, others), f"Next: {next_step(run)}"]


def _spent(run: NucleusRunData) -> str:
    first, total = run.yields.get(0), int(run.spent("images"))
    line = f"Spent: {count(total, 'image')}"
    if run.queried:
        begun = 0 if first is None else first.images
        asked = count(len(run.queried), "round")
        line += f" ({number(begun)} to begin with, {number(total - begun)} asked for in {asked})"
    line += f", {count(run.spent('boxes'), 'box').replace('boxs', 'boxes')} drawn"
    if run.minutes_spent > 0:
        line += f", about {duration(run.minutes_spent)} of annotation"
    known, unknown = (sum(getattr(found, of) for found in run.yields.values()) for of in ("known", "unknown"))
    if known + unknown:
        line += f". Of {count(known + unknown, 'nucleus').replace('nucleuss', 'nuclei')} {number(unknown)} were unknown"
    return f"{line}. Strategy: {run.strategy}."


def _reached(run: NucleusRunData, others: Sequence[NucleusRunData]) -> str:
    split = run.main_split
    if split is None:
        return "Reached: nothing has been evaluated yet."
    curve = run.cost_curve(MAP50, split, "images")
    if not len(curve.rounds):
        return f"Reached: no mAP was recorded on {split}."
    last = int(curve.rounds[-1])
    line = f"Reached: mAP@0.5 {score(curve.values[-1])} on {split} with {count(curve.labels[-1], 'image')}"
    if len(curve.rounds) > 1:
        line += f" (from {score(curve.values[0])} with {number(curve.labels[0])})"
    known = [(run.metric(last, split, f"{name}_ap50"), name) for name in run.classes]
    known = [(value, name) for value, name in known if not math.isnan(value)]
    if len(known) > 1:
        value, name = min(known)
        line += f"; weakest class {name} ({score(value)})"
    published = run.published_round
    if published is not None and published != last:
        line += f". model.pt is that of round {published} (mAP {score(run.metric(published, split, MAP50))})"
    comparison = compare([run, *others]) if others else None
    common = None if comparison is None else comparison.axes["boxes"].common
    if comparison is not None and common is not None:
        bands = sorted(comparison.axes["boxes"].bands, key=lambda band: band.strategy != run.strategy)
        at = ", ".join(f"{band.strategy} {score(band.final_mean)}" for band in bands)
        line += f". With the same {number(round(common[1]))} boxes drawn: {at} (mAP)"
    return f"{line}."
