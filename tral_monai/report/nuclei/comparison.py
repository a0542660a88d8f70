# SPDX-License-Identifier: Apache-2.0
"""Several nucleus runs side by side: one band per strategy, at equal cost, on each of the three cost axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tral_monai.errors import LedgerError
from tral_monai.report.comparison import area
from tral_monai.report.nuclei.run_data import AXES, MAP50, Axis, NucleusRunData
from tral_monai.report.run_data import Curve

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Band:
    """The runs of one strategy on one cost axis.

    Attributes:
        strategy: its name.
        runs: its runs.
        cost: (m,) costs that all its runs cover.
        mean: (m,) mean mAP of the runs there.
        sd: (m,) standard deviation between runs (divisor n - 1), or None with a single run.
        areas: mean mAP over the range that all compared runs cover, per run; NaN where there is no such range.
        finals: mAP at the end of that range, per run.
    """

    strategy: str
    runs: tuple[NucleusRunData, ...]
    cost: FloatArray
    mean: FloatArray
    sd: FloatArray | None
    areas: tuple[float, ...]
    finals: tuple[float, ...]

    @property
    def final_mean(self) -> float:
        """Mean of ``finals``."""
        return float(np.mean(self.finals))


@dataclass(frozen=True)
class AxisComparison:
    """All strategies on one cost axis.

    Attributes:
        axis: the cost.
        common: smallest and largest cost that every run covers, or None where there is no such range.
        bands: one per strategy, in the order in which the runs name them.
    """

    axis: Axis
    common: tuple[float, float] | None
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class NucleusComparison:
    """Strategies compared on one split: per axis, with what weakens the comparison in plain sentences."""

    split: str
    axes: dict[Axis, AxisComparison]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[NucleusRunData, ...]:
        """The runs that are compared, strategy by strategy."""
        return tuple(run for band in self.axes["images"].bands for run in band.runs)


def compare(runs: Sequence[NucleusRunData]) -> NucleusComparison | None:
    """Compare runs on the split that the first one quotes its results on.

    mAP between two rounds is interpolated linearly: two strategies that labelled equally many images have drawn
    different numbers of boxes.

    Returns:
        The comparison, or None with fewer than two evaluated runs.

    Raises:
        LedgerError: the runs do not share their known and unknown classes.
    """
    for other in runs[1:]:
        if set(other.classes) != set(runs[0].classes) or set(other.unknown_classes) != set(runs[0].unknown_classes):
            raise LedgerError(
                "runs can be compared only on the same open-set setting: "
                f"{runs[0].name} knows {list(runs[0].classes)} and not {list(runs[0].unknown_classes)}, "
                f"{other.name} knows {list(other.classes)} and not {list(other.unknown_classes)}"
            )
    split = runs[0].main_split if runs else None
    if split is None:
        return None
    kept = [run for run in runs if len(run.curve(MAP50, split).rounds)]
    notes = [f"{run.name} was not evaluated on {split} and is left out." for run in runs if run not in kept]
    if len(kept) < 2:
        return None
    axes: dict[Axis, AxisComparison] = {axis: _axis(kept, split, axis) for axis in AXES}
    if axes["images"].common is None:
        notes.append("The runs share no number of images, so areas and mAP at equal cost cannot be given.")
    if len({(run.settings.get("dataset"), run.settings.get("index_sha256")) for run in kept}) > 1 and not fold_ratio(
        kept
    ):
        notes.append("The runs saw different fields of view: scores are not comparable without care.")
    if any(len(band.runs) < 2 for band in axes["images"].bands):
        notes.append("A strategy with a single run has no spread: a difference may be chance.")
    return NucleusComparison(split, axes, tuple(notes))


def fold_ratio(runs: Sequence[NucleusRunData]) -> float | None:
    """n_test / n_train where runs differ in the fold: 1 / (folds - 1); None for runs of one fold.

    Paired tests need it, because folds share most of their training fields (`metrics.comparison.paired_t_test`).
    """
    if len({run.fold for run in runs}) < 2:
        return None
    folds = max([run.folds or 0 for run in runs] + [len({run.fold for run in runs})])
    return 1 / (folds - 1)


def known_curve(run: NucleusRunData) -> Curve:
    """Known nuclei in all answers so far (``values``) against images labelled (``labels``), round by round."""
    rounds = np.array(sorted(run.yields), dtype=np.int64)
    images = np.cumsum([run.yields[int(r)].images for r in rounds], dtype=np.float64)
    known = np.cumsum([run.yields[int(r)].known for r in rounds], dtype=np.float64)
    return Curve(rounds, images, known)


def mean_curve(curves: Sequence[Curve]) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """Mean and standard deviation (None for one curve) of curves, at every cost that all of them cover.

    Returns:
        Costs (m,), means (m,), deviations (m,) with divisor n - 1.
    """
    low = max(float(curve.labels.min()) for curve in curves)
    high = min(float(curve.labels.max()) for curve in curves)
    every = np.unique(np.concatenate([curve.labels for curve in curves]))
    cost = every[(every >= low) & (every <= high)]
    values = np.array([np.interp(cost, curve.labels, curve.values) for curve in curves])
    return cost, values.mean(axis=0), values.std(axis=0, ddof=1) if len(curves) > 1 else None


def _axis(runs: Sequence[NucleusRunData], split: str, axis: Axis) -> AxisComparison:
    curves = {id(run): run.cost_curve(MAP50, split, axis) for run in runs}
    low = max(float(curve.labels.min()) for curve in curves.values())
    high = min(float(curve.labels.max()) for curve in curves.values())
    common = (low, high) if low <= high else None
    bands = []
    for strategy in dict.fromkeys(run.strategy for run in runs):
        members = tuple(run for run in runs if run.strategy == strategy)
        own = [curves[id(run)] for run in members]
        cost, mean, sd = mean_curve(own)
        nowhere = tuple(float("nan") for _ in own)
        bands.append(
            Band(
                strategy=strategy,
                runs=members,
                cost=cost,
                mean=mean,
                sd=sd,
                areas=nowhere if common is None else tuple(area(curve, common) for curve in own),
                finals=nowhere if common is None else tuple(area(curve, (high, high)) for curve in own),
            )
        )
    return AxisComparison(axis, common, tuple(bands))
