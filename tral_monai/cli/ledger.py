# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai ledger runs/x``: what a run has done and spent so far, from its ledger."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tral_monai.data.nuclei.open_set import UNKNOWN
from tral_monai.errors import LedgerError
from tral_monai.rounds.ledger import Ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="output folder of the run, going on or finished")


def run(arguments: argparse.Namespace) -> int:
    """Print one row per round: labels trained on, minutes, macro F1, and what was asked and answered.

    A nucleus run has images, boxes drawn, mAP@0.5, and the known and unknown nuclei of the answers instead.

    Args:
        arguments: from the command's parser.

    Returns:
        0.

    Raises:
        LedgerError: the folder holds no ledger.
    """
    path = arguments.run_dir / "ledger.sqlite"
    if not path.is_file():
        raise LedgerError(
            f"{arguments.run_dir} holds no ledger.sqlite; give the output folder of an active-learning run"
        )
    with Ledger(path) as ledger:
        info = ledger.info()
        names = ("labels", "queries", "metrics", "events", "nuclei")
        tables = {name: ledger.table(name) for name in names}
        at_site = "published_round" in info or any(key.startswith("strategy_round_") for key in info)
        if at_site:
            tables["models"] = ledger.table("models")
    if at_site:
        _print_site(info, tables)
        return 0
    nuclei, events, labels = info.get("task") == "nuclei", tables["events"], tables["labels"]
    title = f"{info.get('strategy', 'run')}, seed {info.get('seed', '?')}"
    table = Table(title=escape(title + ("; mAP@0.5 on each split" if nuclei else "")))
    if nuclei:  # more columns: without rules between them they fit 80 characters
        table.box, table.padding = box.SIMPLE_HEAD, (0, 0, 0, 1)
    rows = []
    for number in sorted({int(value) for value in events["round"] if value > 0}):
        of_round = _nucleus_row(number, tables, info["classes"]) if nuclei else _tissue_row(number, tables)
        stage = events[events["round"] == number]["stage"].tolist()[-1]
        rows.append({"round": str(number), **of_round, "last stage": stage.lower().removeprefix("round_")})
    for column in rows[0] if rows else ("round", "last stage"):
        wrapped = max((len(word) for row in rows for word in f"{column} {row[column]}".split()), default=0)
        table.add_column(column, justify="left" if column == "last stage" else "right", min_width=wrapped)
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    console.print(table)
    spent = f"{len(labels)} images, {labels['cost_labels'].sum():.0f} boxes" if nuclei else f"{len(labels)} labels"
    console.print(f"{spent} in all, {labels['cost_minutes'].sum():.1f} minutes of annotation")
    if info.get("stop_reason"):
        console.print(f"stopped: {info['stop_reason']}", markup=False)
    return 0


def _print_site(info: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    from tral_monai.cli.site_rounds import site_table

    labels, console = tables["labels"], Console()
    console.print(site_table(str(info["task"]), tables, info))
    console.print(f"{len(labels)} regions in all, {labels['cost_minutes'].sum():.1f} minutes of annotation")
    if info.get("training_note"):
        console.print(f"newest training: {info['training_note']}", markup=False)


def _tissue_row(number: int, tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    labels = tables["labels"]
    used = labels[labels["round"] < number]
    return {
        "labels": str(len(used)),
        "minutes": f"{used['cost_minutes'].sum():.1f}",
        "F1 val": _score(tables["metrics"], number, "val", "f1_macro"),
        "F1 test": _score(tables["metrics"], number, "test", "f1_macro"),
        "asked": str(int((tables["queries"]["round"] == number).sum())),
        "answered": str(int((labels["round"] == number).sum())),
    }


def _nucleus_row(number: int, tables: dict[str, pd.DataFrame], classes: list[str]) -> dict[str, str]:
    labels, nuclei, metrics = tables["labels"], tables["nuclei"], tables["metrics"]
    used = labels[labels["round"] < number]
    of_round = nuclei["sample_id"].isin(labels.loc[labels["round"] == number, "sample_id"])
    answers = nuclei.loc[of_round, "answer"]
    splits = [split for split in ("val", "test") if split == "test" or (metrics["split"] == split).any()]
    return {
        "images": str(len(used)),
        "boxes": f"{used['cost_labels'].sum():.0f}",
        "minutes": f"{used['cost_minutes'].sum():.1f}",
        **{split: _score(metrics, number, split, "map50") for split in splits},
        "asked": str(int((tables["queries"]["round"] == number).sum())),
        "known": str(int(answers.isin(classes).sum())),
        "unknown": str(int((answers == UNKNOWN).sum())),
    }


def _score(metrics: pd.DataFrame, number: int, split: str, name: str) -> str:
    chosen = metrics[(metrics["round"] == number) & (metrics["split"] == split) & (metrics["name"] == name)]
    return "-" if chosen.empty or pd.isna(chosen["value"].iloc[0]) else f"{float(chosen['value'].iloc[0]):.3f}"
