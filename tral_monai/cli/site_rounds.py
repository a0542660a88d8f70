# SPDX-License-Identifier: Apache-2.0
"""The rounds of a site where people annotate, as a table: what was asked, answered and learnt."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

METRIC = {"tissue": "f1_macro", "nuclei": "map50"}


def site_table(task: str, tables: dict[str, pd.DataFrame], info: dict[str, object]) -> Table:
    """One row per round, round 0 being the one before the first training.

    Args:
        task: ``tissue`` or ``nuclei``.
        tables: the ledger's ``queries``, ``labels``, ``models`` and ``metrics``.
        info: what it records of the site.
    """
    labels, queries, metrics = tables["labels"], tables["queries"], tables["metrics"]
    what = "tiles" if task == "tissue" else "nuclei"
    about = f" ({info['strategy']}, seed {info['seed']})" if "strategy" in info else ""
    table = Table("round", title=f"{task}: regions by round{about}", title_justify="left")
    score = f"{METRIC[task]} held out"
    for column in ("asked", "answered", "open", what, "minutes", score, "published"):
        table.add_column(column, justify="right")
    rounds = {0, *queries["round"].astype(int), *labels["round"].astype(int), *tables["models"]["round"].astype(int)}
    for number in sorted(rounds):
        asked = queries[queries["round"] == number]["sample_id"]
        own = labels[labels["round"] == number]
        values = metrics[(metrics["round"] == number) & (metrics["split"] == "val")]
        value = values.loc[values["name"] == METRIC[task], "value"].dropna()
        published = info.get(f"published_round_{number}")
        table.add_row(
            str(number),
            str(len(asked)),
            str(len(own)),
            str(int((~asked.isin(labels["sample_id"])).sum())),
            f"{own['cost_labels'].sum():.0f}",
            f"{own['cost_minutes'].sum():.1f}",
            f"{float(value.iloc[0]):.3f}" if len(value) else "-",
            "-" if published is None else "yes" if published else "no",
        )
    return table
