# SPDX-License-Identifier: Apache-2.0
"""A table over many nucleus runs: mean and deviation over seeds and folds for each strategy, and against random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tral_monai.errors import ConfigError
from tral_monai.metrics.comparison import PairedComparison, compare_to_control
from tral_monai.report.nuclei.comparison import NucleusComparison, compare, fold_ratio
from tral_monai.report.nuclei.run_data import AXES, FP_ON_UNKNOWN, MAP50, NucleusRunData

CONTROL = "random"
COMPARED = (MAP50, "aulc_images", "aulc_boxes", "aulc_minutes", "known_queried", "purity", FP_ON_UNKNOWN)
"""Columns that strategies are compared by."""
TITLES = {
    MAP50: "mAP@0.5",
    "aulc_images": "area, images",
    "aulc_boxes": "area, boxes",
    "aulc_minutes": "area, minutes",
    "known_queried": "known asked",
    "purity": "purity",
    FP_ON_UNKNOWN: "on unknown",
}
PERCENT = (MAP50, "aulc_images", "aulc_boxes", "aulc_minutes", "purity")


def strategy_table(runs: Sequence[str | Path], *, control: str = CONTROL) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Compare finished runs of one open-set setting.

    Args:
        runs: folders of two or more runs.
        control: the strategy that the others are set against, paired over (fold, seed).

    Returns:
        One row per run (`per_run`), one row per strategy (`per_strategy`), and the latter as Markdown.

    Raises:
        ConfigError: fewer than two of the runs were evaluated.
        LedgerError: a folder holds no run, or the runs differ in their known or unknown classes.
    """
    comparison = compare([NucleusRunData.from_folder(run) for run in runs])
    if comparison is None:
        raise ConfigError(f"a comparison needs two evaluated runs or more, but of {len(runs)} fewer were evaluated")
    rows = per_run(comparison)
    table = per_strategy(rows, control=control, ratio=fold_ratio(comparison.runs))
    return rows, table, markdown(table, comparison, control=control)


def per_run(comparison: NucleusComparison) -> pd.DataFrame:
    """One row per run.

    Columns: strategy, open_set, fold, seed; images, boxes_drawn and minutes that the last model was trained on; map50,
    ``<class>_ap50`` and fp_on_unknown of the last round; aulc_images, aulc_boxes and aulc_minutes, the mean mAP over
    the range of that cost which all runs cover; map50_at_equal_boxes, at the upper end of that range; known_queried,
    unknown_queried and purity of all queries together, without the labels to begin with.
    """
    rows = []
    for band_of in zip(*(comparison.axes[axis].bands for axis in AXES), strict=True):
        for i, run in enumerate(band_of[0].runs):
            rows.append(_row(run, comparison.split, {b: band.areas[i] for b, band in zip(AXES, band_of, strict=True)}))
            rows[-1]["map50_at_equal_boxes"] = band_of[1].finals[i]
    return pd.DataFrame(rows).sort_values(["strategy", "fold", "seed"], kind="stable", ignore_index=True)


def _row(run: NucleusRunData, split: str, areas: dict[str, float]) -> dict[str, object]:
    last = int(run.curve(MAP50, split).rounds[-1])
    queried = list(run.queried.values())
    known, unknown = sum(found.known for found in queried), sum(found.unknown for found in queried)
    return {
        "strategy": run.strategy,
        "open_set": run.open_set,
        "fold": run.fold,
        "seed": run.seed,
        "images": int(run.spent("images", last)),
        "boxes_drawn": run.spent("boxes", last),
        "minutes": run.spent("minutes", last),
        MAP50: run.metric(last, split, MAP50),
        **{f"{name}_ap50": run.metric(last, split, f"{name}_ap50") for name in run.classes},
        FP_ON_UNKNOWN: run.metric(last, split, FP_ON_UNKNOWN),
        **{f"aulc_{axis}": value for axis, value in areas.items()},
        "known_queried": known,
        "unknown_queried": unknown,
        "purity": known / (known + unknown) if known + unknown else math.nan,
    }


def per_strategy(rows: pd.DataFrame, *, control: str = CONTROL, ratio: float | None = None) -> pd.DataFrame:
    """One row per strategy, best area against boxes drawn first.

    Columns: strategy, runs, and for each of `COMPARED` ``<name>_mean`` and ``<name>_sd`` (divisor n - 1; NaN for one
    run). Where the control and another strategy ran with the same two or more (fold, seed):
    ``<name>_minus_<control>``, ``_low`` and ``_high`` (95 % interval of the difference) and ``_p`` (paired t-test,
    adjusted for the number of strategies by Holm; ``ratio`` is `fold_ratio`).
    """
    groups = rows.groupby("strategy", sort=False)
    result = pd.DataFrame({"runs": groups.size()})
    for name in COMPARED:
        result[f"{name}_mean"] = groups[name].mean()
        result[f"{name}_sd"] = groups[name].std(ddof=1)
        for strategy, (test, p) in _paired(rows, name, control, ratio).items():
            result.loc[strategy, f"{name}_minus_{control}"] = test.mean_difference
            result.loc[strategy, f"{name}_low"], result.loc[strategy, f"{name}_high"] = test.confidence_interval
            result.loc[strategy, f"{name}_p"] = p
    result = result.sort_values("aulc_boxes_mean", ascending=False, kind="stable", na_position="last")
    return result.reset_index(names="strategy")


def _paired(
    rows: pd.DataFrame, name: str, control: str, ratio: float | None
) -> dict[str, tuple[PairedComparison, float]]:
    keyed = rows.assign(key=[f"{fold}/{seed}" for fold, seed in zip(rows["fold"], rows["seed"], strict=True)])
    if keyed.duplicated(["strategy", "key"]).any() or control not in set(rows["strategy"]):
        return {}
    wide = keyed.pivot(index="key", columns="strategy", values=name).astype(np.float64)
    wide = wide[wide[control].notna()].dropna(axis="columns")
    scores = {str(of): wide[of].to_numpy() for of in wide}
    if len(wide) < 2 or len(scores) < 2:
        return {}
    return compare_to_control(scores, control, test_train_ratio=ratio)


def markdown(table: pd.DataFrame, comparison: NucleusComparison, *, control: str = CONTROL) -> str:
    """The rows of `per_strategy` as a Markdown table, with what the figures are in a sentence above it."""
    lines = [
        f"Mean ± standard deviation over runs, on {comparison.split}; mAP, areas and purity in percent. "
        + _ranges(comparison),
        "",
        "| strategy | runs | " + " | ".join(TITLES[name] for name in COMPARED) + " |",
        "|---" * (len(COMPARED) + 2) + "|",
    ]
    for _, row in table.iterrows():
        cells = [_cell(name, float(row[f"{name}_mean"]), float(row[f"{name}_sd"])) for name in COMPARED]
        lines.append(f"| `{row['strategy']}` | {row['runs']} | " + " | ".join(cells) + " |")
    paired = f"{MAP50}_minus_{control}"
    if paired in table:
        lines += [
            "",
            f"Difference to `{control}`, paired over folds and seeds (95 % interval; p after Holm)"
            f"{_corrected(comparison)}:",
            "",
        ]
        shown = (MAP50, "aulc_images", "aulc_boxes", "aulc_minutes")
        lines += ["| strategy | " + " | ".join(TITLES[name] for name in shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for _, row in table[table[paired].notna()].iterrows():
            cells = [_difference(row, name, control) for name in shown]
            lines.append(f"| `{row['strategy']}` | " + " | ".join(cells) + " |")
    if comparison.notes:
        lines += ["", *(f"- {note}" for note in comparison.notes)]
    return "\n".join(lines)


def _ranges(comparison: NucleusComparison) -> str:
    parts = [
        f"{of.common[0]:,.0f} to {of.common[1]:,.0f} {AXES[axis]}"
        for axis, of in comparison.axes.items()
        if of.common is not None
    ]
    return f"Areas are the mean mAP over {', '.join(parts)}." if parts else "The runs share no range of cost."


def _corrected(comparison: NucleusComparison) -> str:
    return "" if fold_ratio(comparison.runs) is None else ", widened for the folds' common training fields"


def _cell(name: str, mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "-"
    factor = 100 if name in PERCENT else 1
    digits = 1 if name in PERCENT or name == FP_ON_UNKNOWN else 0
    spread = "" if math.isnan(sd) else f" ± {factor * sd:.{digits}f}"
    return f"{factor * mean:.{digits}f}{spread}"


def _difference(row: pd.Series, name: str, control: str) -> str:
    values = [row.get(f"{name}_{of}", math.nan) for of in (f"minus_{control}", "low", "high", "p")]
    if any(pd.isna(value) for value in values):
        return "-"
    mean, low, high, p = (float(value) for value in values)
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}; p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"
