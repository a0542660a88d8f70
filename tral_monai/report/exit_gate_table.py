# SPDX-License-Identifier: Apache-2.0
"""What exit gates of several models save and change, as one Markdown table."""

from __future__ import annotations

import pandas as pd


def exit_gate_table(rows: pd.DataFrame) -> str:
    """One line per promise and split, over the models.

    Args:
        rows: one row per model, promise and split: ``model``, ``max_disagreement``, and what
            ``ExitGate.calibration["splits"]`` holds of a split.

    Returns:
        Markdown: the share of tiles that exit and macro F1 in percent, mean ± standard deviation over the models;
        tiles of all models together that exited and, of these, differ from the full model.
    """
    lines = [
        "| promise | split | tiles exit, % | differ of all exited | F1 full | F1 gated | F1 low only |",
        "|---|---|---|---|---|---|---|",
    ]
    for (promise, split), group in rows.groupby(["max_disagreement", "split"], sort=False):
        exited, wrong = int(group["exited"].sum()), int(group["disagreeing"].sum())
        differ = f"{wrong} of {exited} ({wrong / exited:.1%})" if exited else "-"
        cells = [f"{promise:.1%}", str(split), _spread(group["coverage"]), differ]
        cells += [_spread(group[f"f1_macro_{name}"]) for name in ("full", "gated", "early")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(shares: pd.Series[float]) -> str:
    percent = 100 * shares
    return f"{percent.mean():.1f}" if len(percent) < 2 else f"{percent.mean():.1f} ± {percent.std():.1f}"
