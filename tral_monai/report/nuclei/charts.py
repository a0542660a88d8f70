# SPDX-License-Identifier: Apache-2.0
"""The charts of a nucleus run's report, in the manner of `tral_monai.report.charts`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tral_monai.atomic_file import atomic_path
from tral_monai.report.charts import TEST_COLOR, VAL_COLOR, WIDTH_INCH, chart_figure, shorten, svg_text
from tral_monai.report.nuclei.comparison import NucleusComparison, known_curve, mean_curve
from tral_monai.report.nuclei.features import FeatureMap
from tral_monai.report.nuclei.run_data import AXES, CLASS_AGNOSTIC, FP_ON_UNKNOWN, MAP50, NucleusRunData
from tral_monai.report.palette import ChartStyle, chart_styles

KNOWN_COLOR, UNKNOWN_COLOR, AGNOSTIC_COLOR = "#0072B2", "#D55E00", "#5a5a5a"


def detection_chart(run: NucleusRunData, styles: Mapping[str, ChartStyle]) -> str:
    """Above: mAP@0.5 against each of the three costs, per split. Below: the AP of every class on the main split."""
    split = run.main_split
    assert split is not None, "an unevaluated run has no curves"
    with chart_figure(WIDTH_INCH, 5.1) as figure:
        grid = figure.subplots(2, 3, sharey="row")
        for column, axis in enumerate(AXES):
            for of in sorted(run.splits, key=lambda name: name == split):
                curve = run.cost_curve(MAP50, of, axis)
                main = of == split
                grid[0][column].plot(
                    curve.labels,
                    curve.values,
                    color=TEST_COLOR if main else VAL_COLOR,
                    marker="o" if main else "s",
                    linestyle="-" if main else (0, (4, 2)),
                    markerfacecolor=TEST_COLOR if main else "white",
                    linewidth=1.9 if main else 1.2,
                    label=f"mAP, {of}",
                )
            curve = run.cost_curve(CLASS_AGNOSTIC, split, axis)
            if len(curve.rounds):
                grid[0][column].plot(
                    curve.labels,
                    curve.values,
                    color=AGNOSTIC_COLOR,
                    marker="^",
                    linestyle=(0, (1, 1)),
                    linewidth=1.3,
                    label=f"any known nucleus, {split}",
                )
            for name in run.classes:
                curve = run.cost_curve(f"{name}_ap50", split, axis)
                style = styles[name]
                grid[1][column].plot(
                    curve.labels,
                    curve.values,
                    color=style.color,
                    marker=style.marker,
                    linestyle=style.dash,
                    linewidth=1.5,
                    markersize=4.5,
                    label=shorten(name, 26),
                )
            _cost_axis(grid[0][column], "")
            _cost_axis(grid[1][column], AXES[axis])
        for row, title in enumerate(("mAP@0.5", f"AP@0.5 per class, {split}")):
            grid[row][0].set_ylabel(title)
            _fit_scores(grid[row][0])
        handles = [grid[row][0].get_legend_handles_labels() for row in (0, 1)]
        figure.legend(*handles[0], loc="outside upper left", ncols=3)
        figure.legend(*handles[1], loc="outside lower left", ncols=4)
        return svg_text(figure)


def query_chart(run: NucleusRunData) -> str:
    """Left: purity of every query with that of the pool it was made from. Right: known and unknown nuclei asked for."""
    queried = run.queried
    rounds = list(queried)
    with chart_figure(WIDTH_INCH, 2.9) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(rounds, [queried[r].purity for r in rounds], color=KNOWN_COLOR, marker="o", label="asked for")
        rates = [run.pool_rate(r) for r in rounds]
        if any(rate is not None for rate in rates):
            base = [math.nan if rate is None else rate.purity for rate in rates]
            left.plot(
                rounds, base, color=AGNOSTIC_COLOR, linestyle=(0, (4, 3)), linewidth=1.3, marker=".", label="the pool"
            )
        left.set_ylabel("purity (known nuclei)")
        left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _fit_scores(left)
        left.legend(loc="best")
        known = np.array([queried[r].known for r in rounds])
        unknown = np.array([queried[r].unknown for r in rounds])
        right.bar(rounds, known, width=0.6, color=KNOWN_COLOR, label="known")
        hatched = {"color": UNKNOWN_COLOR, "hatch": "///", "edgecolor": "white"}
        right.bar(rounds, unknown, bottom=known, width=0.6, label="unknown", **hatched)
        right.set_ylabel("nuclei asked for")
        right.set_ylim(0, max(1.0, 1.25 * float((known + unknown).max())))
        right.legend(loc="upper left", ncols=2)
        for axes in (left, right):
            axes.set_xlabel("round")
            axes.set_xlim(min(rounds) - 0.6, max(rounds) + 0.6)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of one round too
        return svg_text(figure)


def unknown_chart(run: NucleusRunData) -> str:
    """Detections that lie on unknown nuclei, against images labelled."""
    with chart_figure(WIDTH_INCH, 2.5) as figure:
        axes = figure.add_subplot()
        for split in sorted(run.splits, key=lambda name: name != run.main_split):
            curve = run.cost_curve(FP_ON_UNKNOWN, split, "images")
            main = split == run.main_split
            axes.plot(
                curve.labels,
                curve.values,
                color=UNKNOWN_COLOR if main else VAL_COLOR,
                marker="o" if main else "s",
                linestyle="-" if main else (0, (4, 2)),
                markerfacecolor=UNKNOWN_COLOR if main else "white",
                label=split,
            )
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # a count
        _cost_axis(axes, AXES["images"])
        axes.set_ylabel("detections on unknown")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        return svg_text(figure)


def feature_chart(features: FeatureMap) -> str:
    """RoI features of annotated nuclei in two dimensions, with the prototypes of known and unknown."""
    with chart_figure(WIDTH_INCH, 4.3) as figure:
        axes = figure.add_subplot()
        for known, name, color, marker in (
            (True, "known nucleus", KNOWN_COLOR, "o"),
            (False, "unknown nucleus", UNKNOWN_COLOR, "x"),
        ):
            points = features.points[features.known == known]
            axes.scatter(
                points[:, 0], points[:, 1], s=14, color=color, marker=marker, linewidths=0.9, alpha=0.55, label=name
            )
        for i, (name, color) in enumerate((("known", KNOWN_COLOR), ("unknown", UNKNOWN_COLOR))):
            axes.scatter(
                features.prototypes[i, 0],
                features.prototypes[i, 1],
                s=260,
                color=color,
                marker="*",
                edgecolors="black",
                linewidths=1.1,
                zorder=5,
                label=f"prototype of {name}",
            )
        first, second = features.axis_titles
        axes.set_xlabel(first)
        axes.set_ylabel(second)
        axes.grid(axis="x")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        return svg_text(figure)


def comparison_chart(comparison: NucleusComparison) -> str:
    """mAP per strategy against each of the three costs, and known nuclei gathered against images (paper, Fig. 3)."""
    with chart_figure(WIDTH_INCH, 5.6) as figure:
        draw_comparison(figure, comparison)
        return svg_text(figure)


def comparison_png(comparison: NucleusComparison, path: str | Path, *, dpi: int = 150) -> None:
    """`comparison_chart` as a PNG file, replaced in one step."""
    with chart_figure(WIDTH_INCH, 5.6) as figure, atomic_path(Path(path)) as part:
        draw_comparison(figure, comparison)
        figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None})


def draw_comparison(figure: Figure, comparison: NucleusComparison) -> None:
    """Four panels: mAP against images, boxes and minutes, and known nuclei against images."""
    grid = figure.subplots(2, 2).ravel()
    styles = chart_styles([band.strategy for band in comparison.axes["images"].bands])
    for axes, (axis, title) in zip(grid, AXES.items(), strict=False):
        on_axis = comparison.axes[axis]
        for band in on_axis.bands:
            style = styles[band.strategy]
            if band.sd is not None:
                for run in band.runs:
                    curve = run.cost_curve(MAP50, comparison.split, axis)
                    axes.plot(curve.labels, curve.values, color=style.color, linewidth=0.5, alpha=0.4)
                axes.fill_between(
                    band.cost, band.mean - band.sd, band.mean + band.sd, color=style.color, alpha=0.13, linewidth=0
                )
            count = f" ({len(band.runs)} runs)" if len(band.runs) > 1 else ""
            axes.plot(
                band.cost,
                band.mean,
                color=style.color,
                marker=style.marker,
                markersize=4,
                linestyle=style.dash,
                linewidth=1.6,
                label=f"{shorten(band.strategy, 22)}{count}",
            )
        _cost_axis(axes, title)
        axes.set_ylabel(f"mAP@0.5, {comparison.split}")
        _fit_scores(axes)
        if on_axis.common is not None:
            axes.axvline(on_axis.common[1], color="#b5b5b5", linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
    for band in comparison.axes["images"].bands:
        style = styles[band.strategy]
        cost, mean, sd = mean_curve([known_curve(run) for run in band.runs])
        if sd is not None:
            grid[3].fill_between(cost, mean - sd, mean + sd, color=style.color, alpha=0.13, linewidth=0)
        grid[3].plot(
            cost, mean, color=style.color, marker=style.marker, markersize=4, linestyle=style.dash, linewidth=1.6
        )
    _cost_axis(grid[3], AXES["images"])
    grid[3].set_ylabel("known nuclei gathered")
    grid[3].set_ylim(bottom=0)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)


def _cost_axis(axes: Axes, title: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlim(left=0)
    if title:
        axes.set_xlabel(title)


def _fit_scores(axes: Axes) -> None:
    """The vertical axis begins at 0 and ends above the highest point: AP is often far below 1."""
    values = [float(value) for line in axes.get_lines() for value in _numbers(line.get_ydata())]
    axes.set_ylim(0, min(1.03, 1.12 * max((value for value in values if not math.isnan(value)), default=0.9) + 0.02))


def _numbers(values: object) -> Iterable[float]:
    return np.asarray(values, dtype=np.float64).ravel().tolist()
