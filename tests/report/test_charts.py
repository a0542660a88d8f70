# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tral_monai.report import charts
from tral_monai.report.comparison import compare
from tral_monai.report.run_data import RunData

MakeRun = Callable[..., RunData]
SVG = "{http://www.w3.org/2000/svg}"


def comments(svg: str) -> str:
    """matplotlib writes the text that it draws as outlines into comments."""
    return " ".join(part.split("-->")[0] for part in svg.split("<!--")[1:])


def all_charts(run: RunData, other: RunData) -> list[str]:
    comparison = compare([run, other])
    assert comparison is not None
    shares = np.array([[0.5, 0.5], [0.25, 0.75]])
    return [
        charts.overall_chart(run),
        charts.class_chart(run),
        charts.comparison_chart(comparison),
        charts.balance_chart(run, [1, 2], shares),
    ]


def test_charts_are_svg_without_metadata_and_the_same_each_time(make_run: MakeRun) -> None:
    run, other = make_run("a"), make_run("b", strategy="random")
    first = all_charts(run, other)
    for svg in first:
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}metadata") is None
    assert all_charts(run, other) == first


def test_settings_of_the_reader_do_not_matter(make_run: MakeRun) -> None:
    run, other = make_run("a"), make_run("b", strategy="random")
    plain = all_charts(run, other)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert all_charts(run, other) == plain


def test_charts_name_what_they_show(make_run: MakeRun) -> None:
    overall, per_class, comparison, balance = map(comments, all_charts(make_run("a"), make_run("b", strategy="random")))
    for text in ("macro F1, test", "macro F1, val", "micro F1, test", "labels spent on training"):
        assert text in overall
    assert "Blood" in per_class
    assert "random" in comparison
    assert "tri_al_quota" in comparison
    assert "Blood 25%  (full 25%)" in balance  # pool: 10 of 40
    assert "Stroma 75%  (full 75%)" in balance


def test_a_class_without_scores_leaves_its_panel_empty(make_run: MakeRun) -> None:
    confusions = {(1, "val"): [[0, 0], [0, 8]], (2, "val"): [[0, 0], [0, 9]]}
    ElementTree.fromstring(charts.class_chart(make_run(confusions=confusions)))


def test_names_are_drawn_as_they_are(make_run: MakeRun) -> None:
    run = make_run(classes=["$\\alpha$ <b>", "Stroma & more"])
    assert "$\\alpha$ &lt;b&gt;" in comments(charts.class_chart(run))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.1))
def test_spread_labels_keep_their_order_and_distance(values: list[float], gap: float) -> None:
    heights = charts.spread(values, gap=gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for low, high in itertools.pairwise(order):
        assert heights[high] - heights[low] >= gap - 1e-9
    assert min(heights) >= -1e-9


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert charts.spread([0.5, 0.1, 0.9], gap=0.05) == pytest.approx([0.5, 0.1, 0.9])
