# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai ledger runs/x``: what a run has done and spent so far, from its ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

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
        info, labels, queries = ledger.info(), ledger.table("labels"), ledger.table("queries")
        metrics, events = ledger.table("metrics"), ledger.table("events")
    table = Table(title=f"{info.get('strategy', 'run')}, seed {info.get('seed', '?')}")
    for column in ("round", "labels", "minutes", "F1 val", "F1 test", "asked", "answered", "last stage"):
        table.add_column(column, justify="left" if column == "last stage" else "right")
    for number in sorted({int(value) for value in events["round"] if value > 0}):
        used = labels[labels["round"] < number]
        stages = events[events["round"] == number]["stage"].tolist()
        table.add_row(
            str(number),
            str(len(used)),
            f"{used['cost_minutes'].sum():.1f}",
            *(_macro_f1(metrics, number, split) for split in ("val", "test")),
            str(int((queries["round"] == number).sum())),
            str(int((labels["round"] == number).sum())),
            stages[-1].lower().replace("_", " "),
        )
    console = Console()
    console.print(table)
    console.print(f"{len(labels)} labels in all, {labels['cost_minutes'].sum():.1f} minutes of annotation")
    if info.get("stop_reason"):
        console.print(f"stopped: {info['stop_reason']}", markup=False)
    return 0


def _macro_f1(metrics: pd.DataFrame, number: int, split: str) -> str:
    chosen = metrics[(metrics["round"] == number) & (metrics["split"] == split) & (metrics["name"] == "f1_macro")]
    return f"{float(chosen['value'].iloc[0]):.3f}" if len(chosen) else "-"
