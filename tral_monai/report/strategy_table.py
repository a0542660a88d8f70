# SPDX-License-Identifier: Apache-2.0
"""A table over many runs: mean and standard deviation over seeds, for each strategy, at equal label counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tral_monai.errors import ConfigError
from tral_monai.metrics.learning_curve import area_under_learning_curve


def strategy_table(runs: Sequence[str | Path], *, split: str = "test") -> tuple[pd.DataFrame, str]:
    """Compare finished runs whose folders are called ``<strategy>_seed<number>``.

    Args:
        runs: run folders with a ``summary.csv``.
        split: split whose F1 is tabulated.

    Returns:
        One row per run (strategy, seed, labels, F1 of the last round per class, micro and macro, area under the macro
        F1 curve), and a Markdown table with one row per strategy: mean ± standard deviation over seeds in percent.

    Raises:
        ConfigError: a folder has no summary, another name, or no rows of the split.
    """
    table = pd.DataFrame([_row(Path(run), split) for run in runs])
    scores = [str(name) for name in table if name not in ("strategy", "seed", "labels")]
    order = table.groupby("strategy")["f1_macro"].mean().sort_values(ascending=False).index
    lines = [
        "| strategy | seeds | labels | " + " | ".join(name.replace("_f1", "") for name in scores) + " |",
        "|---" * (len(scores) + 3) + "|",
    ]
    for strategy in order:
        rows = table[table["strategy"] == strategy]
        cells = [f"{100 * rows[name].mean():.1f} ± {100 * rows[name].std(ddof=1):.1f}" for name in scores]
        cells = ["-" if "nan" in cell.split(" ±")[0] else cell.replace(" ± nan", "") for cell in cells]
        lines.append(f"| `{strategy}` | {len(rows)} | {rows['labels'].mean():.0f} | " + " | ".join(cells) + " |")
    return table, "\n".join(lines)


def _row(run: Path, split: str) -> dict[str, object]:
    name, mark, seed = run.name.rpartition("_seed")
    if not mark or not seed.isdigit():
        raise ConfigError(f"a run's folder must be called <strategy>_seed<number>, but is '{run.name}'")
    if not (run / "summary.csv").is_file():
        raise ConfigError(f"{run.name} has no summary.csv; finish the run first")
    rows = pd.read_csv(run / "summary.csv")
    rows = rows[rows["split"] == split].sort_values("round")
    if rows.empty:
        raise ConfigError(f"{run.name} was not evaluated on split '{split}'")
    last = rows.iloc[-1]
    area = area_under_learning_curve(rows["labels"], rows["f1_macro"]) if len(rows) > 1 else float("nan")
    columns = [str(name) for name in rows if str(name).endswith("_f1") or str(name).startswith("f1_")]
    scores = {name: float(last[name]) for name in columns}
    return {"strategy": name, "seed": int(seed), "labels": int(last["labels"]), **scores, "area": area}
