# SPDX-License-Identifier: Apache-2.0
"""The charts of the report as SVG text: fixed fonts and ids, no dates, so that one ledger gives one file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from tral_monai.report.comparison import Comparison
from tral_monai.report.palette import chart_styles
from tral_monai.report.run_data import Curve, RunData
from tral_monai.report.slopes import class_standard_errors

WIDTH_INCH = 7.6
TEST_COLOR, VAL_COLOR = "#0072B2", "#8a8a8a"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",  # text as outlines: the same on every machine, whatever fonts it has
    "svg.hashsalt": "tral_monai",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.9,
    "lines.markersize": 5.5,
    "text.parse_math": False,  # a dollar in a class name is a dollar
}


@contextmanager
def chart_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of a size in inches, drawn with this module's settings only."""
    # matplotlib's own defaults first, so that a reader's matplotlibrc changes nothing.
    defaults: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    with mpl.rc_context({**defaults, **SETTINGS}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def svg_text(figure: Figure) -> str:
    """The figure as an ``<svg>`` element without prolog, document type or metadata (which would name outer URLs)."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL).strip()


def overall_chart(run: RunData) -> str:
    """Macro and micro F1 against labels spent; test filled and solid, validation hollow and dashed."""
    names = {"f1_macro": "macro F1", "f1_micro": "micro F1"}
    with chart_figure(WIDTH_INCH, 3.3) as figure:
        axes = figure.add_subplot()
        curves = []
        for i, (name, title) in enumerate(names.items()):
            style = list(chart_styles(list(names)).values())[i]
            for split in sorted(run.splits, key=lambda split: split != run.main_split):
                curve = run.curve(name, split)
                curves.append(curve)
                test = split == run.main_split
                axes.plot(
                    curve.labels,
                    curve.values,
                    color=style.color,
                    marker=style.marker,
                    linestyle="-" if test else (0, (4, 2)),
                    markerfacecolor=style.color if test else "white",
                    linewidth=1.9 if test else 1.3,
                    label=f"{title}, {split}",
                )
        _score_axis(axes, curves)
        axes.set_xlabel("labels spent on training")
        axes.set_ylabel("F1")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        return svg_text(figure)


def class_chart(run: RunData) -> str:
    """One panel per class: its F1 against labels spent on test (with sampling interval) and validation."""
    columns = min(3, len(run.classes))
    rows = math.ceil(len(run.classes) / columns)
    with chart_figure(WIDTH_INCH, 0.45 + 1.95 * rows) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        curves = []
        for i, name in enumerate(run.classes):
            axes = grid[i // columns][i % columns]
            axes.set_title(shorten(name, 28))
            for split in sorted(run.splits, key=lambda split: split == run.main_split):
                curve = run.curve(f"{name}_f1", split)
                curves.append(curve)
                _class_series(axes, curve, split == run.main_split, _class_errors(run, curve, split, i), split)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if i % columns == 0:
                axes.set_ylabel("F1")
            if i + columns >= len(run.classes):  # the lowest of its column
                axes.set_xlabel("labels spent on training")
                axes.tick_params(labelbottom=True)
        _score_axis(grid[0][0], curves)
        handles, texts = grid[0][0].get_legend_handles_labels()
        spare = list(grid.flat[len(run.classes) :])
        for axes in spare:
            axes.set_axis_off()
        if spare:
            spare[-1].legend(handles[::-1], texts[::-1], loc="center", fontsize=9.5)
        else:
            figure.legend(handles[::-1], texts[::-1], loc="outside upper right", ncols=3)
        return svg_text(figure)


def _class_series(axes: Axes, curve: Curve, test: bool, errors: NDArray[np.float64], split: str) -> None:
    if test:
        low, high = np.clip(curve.values - 1.96 * errors, 0, 1), np.clip(curve.values + 1.96 * errors, 0, 1)
        axes.fill_between(curve.labels, low, high, color=TEST_COLOR, alpha=0.14, linewidth=0)
    axes.plot(
        curve.labels,
        curve.values,
        color=TEST_COLOR if test else VAL_COLOR,
        marker="o" if test else "s",
        linestyle="-" if test else (0, (4, 2)),
        markerfacecolor=TEST_COLOR if test else "white",
        linewidth=1.9 if test else 1.2,
        markersize=5 if test else 4,
        label=split,
    )


def _class_errors(run: RunData, curve: Curve, split: str, index: int) -> NDArray[np.float64]:
    matrices = [run.confusion(int(round_), split) for round_ in curve.rounds]
    return np.array([np.nan if matrix is None else class_standard_errors(matrix)[index] for matrix in matrices])


def comparison_chart(comparison: Comparison, metric_title: str = "macro F1") -> str:
    """Score against labels spent per strategy: the mean with a band of one standard deviation, and thin single runs."""
    styles = chart_styles([band.strategy for band in comparison.bands])
    with chart_figure(WIDTH_INCH, 3.5) as figure:
        axes = figure.add_subplot()
        curves = []
        if comparison.common is not None and not comparison.common_is_all:
            axes.axvspan(*comparison.common, color="#f4f4f4", zorder=0)
        for band in comparison.bands:
            style = styles[band.strategy]
            for run in band.runs:
                curve = run.curve("f1_macro", comparison.split)
                curves.append(curve)
                if band.sd is not None:
                    axes.plot(curve.labels, curve.values, color=style.color, linewidth=0.6, alpha=0.45)
            if band.sd is not None:
                axes.fill_between(
                    band.labels, band.mean - band.sd, band.mean + band.sd, color=style.color, alpha=0.15, linewidth=0
                )
            count = f" ({len(band.runs)} seeds)" if len(band.runs) > 1 else ""
            axes.plot(
                band.labels,
                band.mean,
                color=style.color,
                marker=style.marker,
                linestyle=style.dash,
                label=f"{shorten(band.strategy, 24)}{count}",
            )
        _score_axis(axes, curves)
        axes.set_xlabel("labels spent on training")
        axes.set_ylabel(f"{metric_title}, {comparison.split}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        return svg_text(figure)


def balance_chart(run: RunData, rounds: Sequence[int], shares: NDArray[np.float64]) -> str:
    """The paper's Fig. 2: the share of every class in the training set, shares (n, C), over the rounds (n,).

    The dashed line of the same colour is the class's share of the full training set, where it is known.
    """
    styles = chart_styles(run.classes)
    full = run.full_counts
    with chart_figure(WIDTH_INCH, 3.6) as figure:
        axes = figure.add_subplot()
        ends = []
        known = full is not None and full.sum() > 0
        dashes = dict(zip(run.classes, full / full.sum(), strict=True)) if full is not None and known else None
        for i, name in enumerate(run.classes):
            style = styles[name]
            axes.plot(rounds, shares[:, i], color=style.color, marker=style.marker)
            if dashes is not None:
                axes.axhline(dashes[name], color=style.color, linestyle=(0, (4, 3)), linewidth=1.0, alpha=0.8)
            ends.append((float(shares[-1, i]), name))
        top = max(float(np.nanmax(shares)), *(dashes.values() if dashes is not None else (0.0,)))
        axes.set_ylim(0, min(1.0, top * 1.12 + 0.02))
        axes.set_xlim(min(rounds) - 0.15, max(rounds) + 0.15)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of one round too
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("round")
        axes.set_ylabel("share of the training set")
        heights = spread([value for value, _ in ends], gap=0.058 * axes.get_ylim()[1])
        for (value, name), height in zip(ends, heights, strict=True):
            axes.annotate(
                f"{shorten(name, 18)} {value:.0%}" + ("" if dashes is None else f"  (full {dashes[name]:.0%})"),
                xy=(1.0, value),
                xytext=(1.03, height),
                xycoords=("axes fraction", "data"),
                textcoords=("axes fraction", "data"),
                color=styles[name].color,
                va="center",
                fontsize=9,
                fontweight="bold",
                arrowprops={
                    "arrowstyle": "-",
                    "color": styles[name].color,
                    "linewidth": 0.7,
                    "relpos": (0.0, 0.5),
                    "shrinkA": 1.0,
                    "shrinkB": 1.0,
                },
                annotation_clip=False,
            )
        return svg_text(figure)


def spread(values: Sequence[float], *, gap: float) -> list[float]:
    """Move values apart, keeping their order, until neighbours are at least ``gap`` apart; the mean stays."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed: list[float] = []
    for i in order:
        placed.append(values[i] if not placed else max(values[i], placed[-1] + gap))
    shift = (sum(values) - sum(placed)) / len(values) if placed else 0.0
    shift = max(shift, -placed[0]) if placed else 0.0
    result = [0.0] * len(values)
    for i, height in zip(order, placed, strict=True):
        result[i] = height + shift
    return result


def _score_axis(axes: Axes, curves: Sequence[Curve]) -> None:
    values = np.concatenate([curve.values for curve in curves]) if curves else np.zeros(0)
    values = values[~np.isnan(values)]
    floor = math.floor(10 * float(values.min()) - 0.3) / 10 if len(values) else 0.0
    axes.set_ylim(max(floor, 0.0), 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def shorten(text: str, length: int) -> str:
    """The text, cut to a length with an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"
