# SPDX-License-Identifier: Apache-2.0
"""Several runs side by side: one band per strategy, compared at equal label counts only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tral_monai.errors import LedgerError
from tral_monai.metrics.comparison import PairedComparison, compare_to_control
from tral_monai.metrics.learning_curve import area_under_learning_curve
from tral_monai.report.run_data import Curve, RunData


@dataclass(frozen=True)
class StrategyBand:
    """The runs of one strategy on a common grid of label counts.

    Attributes:
        strategy: its name.
        runs: its runs.
        labels: (m,) label counts.
        mean: (m,) mean score of the runs.
        sd: (m,) standard deviation between runs (divisor n - 1), or None with a single run.
        area_mean: mean area under the curve over the common range, 0..1; NaN where the runs share no range.
        area_sd: its standard deviation, or None with a single run.
        areas: area of each run in the order of ``runs``.
        final: score per column of `Comparison.columns` at the last of `Comparison.common`, mean over the runs.
        final_sd: standard deviations of ``final``, or None with a single run.
    """

    strategy: str
    runs: tuple[RunData, ...]
    labels: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64] | None
    area_mean: float
    area_sd: float | None
    areas: tuple[float, ...]
    final: tuple[float, ...]
    final_sd: tuple[float, ...] | None


@dataclass(frozen=True)
class Comparison:
    """Strategies compared on one split.

    Attributes:
        split: the split.
        common: smallest and largest label count that every run covers, or None where there is no such range.
        columns: names of the metrics in `StrategyBand.final`.
        bands: one per strategy, largest area first.
        paired: per rival strategy its area minus that of the first run's strategy, paired over the seeds, with the
            p-value adjusted for the number of rivals (Holm); only rivals with the same seeds, two or more.
        notes: what weakens the comparison, in plain sentences.
    """

    split: str
    common: tuple[float, float] | None
    columns: tuple[str, ...]
    bands: tuple[StrategyBand, ...]
    paired: dict[str, tuple[PairedComparison, float]]
    notes: tuple[str, ...]

    @property
    def common_is_all(self) -> bool:
        """Whether every run covers the same label counts."""
        curves = [run.curve("f1_macro", self.split).labels for band in self.bands for run in band.runs]
        return self.common == (min(float(c.min()) for c in curves), max(float(c.max()) for c in curves))


def area(curve: Curve, common: tuple[float, float]) -> float:
    """Area under a learning curve between two label counts that lie inside it, as a mean score: 1 is the best.

    Undefined scores are left out. A range of width 0 gives the score there; a curve that no longer covers the range
    gives NaN.
    """
    known = ~np.isnan(curve.values)
    # Of rounds with equal label counts, such as those after the pool ran empty, the last one counts.
    scores = dict(zip(curve.labels[known].tolist(), curve.values[known].tolist(), strict=True))
    labels = sorted(scores)
    if not labels or common[0] < labels[0] or common[1] > labels[-1]:
        return float("nan")
    values = [scores[count] for count in labels]
    if common[0] == common[1]:
        return float(np.interp(common[0], labels, values))
    return area_under_learning_curve(labels, values, cost_range=common)


def compare(runs: Sequence[RunData], *, metric: str = "f1_macro") -> Comparison | None:
    """Compare runs on the split that the first one quotes its results on.

    Scores between two rounds are interpolated linearly, because two runs seldom have exactly the same label counts.

    Returns:
        The comparison, or None with fewer than two evaluated runs.

    Raises:
        LedgerError: the runs do not share their classes.
    """
    for other in runs[1:]:
        if set(other.classes) != set(runs[0].classes):
            raise LedgerError(
                f"runs can be compared only on the same classes: {runs[0].name} has {list(runs[0].classes)}, "
                f"{other.name} has {list(other.classes)}"
            )
    split = runs[0].main_split if runs else None
    if split is None:
        return None
    curves = [(run, run.curve(metric, split)) for run in runs]
    curves = [(run, curve) for run, curve in curves if len(curve.rounds)]
    kept = [run for run, _ in curves]
    notes = [f"{run.name} was not evaluated on {split} and is left out." for run in runs if run not in kept]
    if len(curves) < 2:
        return None
    low = max(float(curve.labels.min()) for _, curve in curves)
    high = min(float(curve.labels.max()) for _, curve in curves)
    common = (low, high) if low <= high else None
    if common is None:
        notes.append("The runs share no label count, so areas and scores at equal labels cannot be given.")
    if len({_support(run, split) for run, _ in curves}) > 1:
        notes.append(f"The {split} sets differ in their number of tiles per class: scores are not comparable.")
    columns = (*(f"{name}_f1" for name in runs[0].classes), "f1_micro", "f1_macro")
    names = list(dict.fromkeys(run.strategy for run, _ in curves))
    members = {name: [pair for pair in curves if pair[0].strategy == name] for name in names}
    bands = [_band(name, members[name], split, columns, common) for name in names]
    if any(len(band.runs) < 2 for band in bands):
        notes.append("A strategy with a single seed has no spread: a difference may be chance.")
    ranked = sorted(bands, key=lambda band: (-np.nan_to_num(band.area_mean, nan=-1.0), names.index(band.strategy)))
    return Comparison(split, common, columns, tuple(ranked), _paired(bands, runs[0].strategy), tuple(notes))


def _paired(bands: Sequence[StrategyBand], control: str) -> dict[str, tuple[PairedComparison, float]]:
    areas = {
        band.strategy: dict(zip([run.seed for run in band.runs], band.areas, strict=True))
        for band in bands
        if np.isfinite(band.areas).all() and len({run.seed for run in band.runs}) == len(band.runs)
    }
    seeds = sorted(seed for seed in areas.get(control, {}) if seed is not None)
    same = {name: [of[seed] for seed in seeds] for name, of in areas.items() if set(of) == set(seeds)}
    return compare_to_control(same, control) if len(seeds) > 1 and len(same) > 1 and control in same else {}


def _support(run: RunData, split: str) -> tuple[int, ...] | None:
    matrix = run.confusion(run.evaluated_rounds[-1], split)
    if matrix is None:
        return None
    counts = dict(zip(run.classes, matrix.sum(axis=1), strict=True))
    return tuple(int(counts[name]) for name in sorted(counts))


def _band(
    strategy: str,
    members: list[tuple[RunData, Curve]],
    split: str,
    columns: tuple[str, ...],
    common: tuple[float, float] | None,
) -> StrategyBand:
    low = max(curve.labels.min() for _, curve in members)
    high = min(curve.labels.max() for _, curve in members)
    every = np.unique(np.concatenate([curve.labels for _, curve in members]))
    grid = every[(every >= low) & (every <= high)]
    scores = np.array([np.interp(grid, curve.labels, curve.values) for _, curve in members])
    nowhere = float("nan")
    areas = np.array([area(curve, common) if common is not None else nowhere for _, curve in members])
    final = np.full((len(members), len(columns)), np.nan)
    if common is not None:
        for i, (run, _) in enumerate(members):
            for j, column in enumerate(columns):
                curve = run.curve(column, split)
                if len(curve.rounds):
                    final[i, j] = np.interp(common[1], curve.labels, curve.values)
    several = len(members) > 1
    return StrategyBand(
        strategy=strategy,
        runs=tuple(run for run, _ in members),
        labels=grid,
        mean=scores.mean(axis=0),
        sd=scores.std(axis=0, ddof=1) if several else None,
        area_mean=float(areas.mean()),
        area_sd=float(areas.std(ddof=1)) if several else None,
        areas=tuple(float(value) for value in areas),
        final=tuple(float(value) for value in final.mean(axis=0)),
        final_sd=tuple(float(value) for value in final.std(axis=0, ddof=1)) if several else None,
    )
