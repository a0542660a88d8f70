# SPDX-License-Identifier: Apache-2.0
"""A table over runs with tile context and with dense context at equal labels: each over seeds, and their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tral_monai.errors import ConfigError
from tral_monai.report.strategy_table import strategy_table

CONTEXTS = ("tile", "dense")


def context_table(
    runs: Sequence[str | Path], parameters: Mapping[str, int], *, splits: Sequence[str] = ("val", "test")
) -> tuple[pd.DataFrame, str]:
    """Compare finished runs whose folders are called ``tile_seed<number>`` and ``dense_seed<number>``.

    Args:
        runs: run folders with a ``summary.csv``; each context with the same seeds.
        parameters: parameters of the network with each context.
        splits: splits whose F1 is tabulated.

    Returns:
        One row per run and split (context, seed, labels, parameters, F1 of the last round per class, micro and macro),
        and a Markdown table: per split mean ± standard deviation over seeds in percent, and those of the difference of
        runs with the same seed.

    Raises:
        ConfigError: the contexts do not have the same seeds and labels, or a folder is no finished run.
    """
    parts = [strategy_table(runs, split=split)[0].assign(split=split) for split in splits]
    table = pd.concat(parts, ignore_index=True).drop(columns="area").rename(columns={"strategy": "context"})
    done = {context: sorted(rows["seed"].unique()) for context, rows in table.groupby("context")}
    if set(done) != set(CONTEXTS) or done["tile"] != done["dense"] or table["labels"].nunique() != 1:
        raise ConfigError(
            f"runs are compared by seed at equal labels and so must be tile and dense with the same seeds and number "
            f"of labels, but are {sorted(Path(run).name for run in runs)} with {sorted(set(table['labels']))} labels"
        )
    table.insert(3, "parameters", table["context"].map(dict(parameters)))
    scores = [str(name) for name in table if str(name).endswith("_f1") or str(name).startswith("f1_")]
    titles = ["split", "context", "seeds", "labels", "parameters", *(name.removesuffix("_f1") for name in scores)]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for split, rows in table.groupby("split", sort=False):
        of = {context: rows[rows["context"] == context].set_index("seed")[scores] for context in CONTEXTS}
        for context in CONTEXTS:
            first = f"| {split} | {context} | {len(of[context])} | {rows['labels'].iloc[0]} | {parameters[context]:,} |"
            lines.append(first + _cells(of[context]))
        lines.append(f"| {split} | dense - tile | {len(of['dense'])} | | |" + _cells(of["dense"] - of["tile"], "+"))
    return table, "\n".join(lines)


def _cells(scores: pd.DataFrame, sign: str = "") -> str:
    pairs = zip(100 * scores.mean(), 100 * scores.std(ddof=1), strict=True)
    return "".join(f" {mean:{sign}.1f} ± {deviation:.1f} |".replace(" ± nan", "") for mean, deviation in pairs)
