# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from PIL import Image

from tral_monai.report.nuclei import charts
from tral_monai.report.nuclei.comparison import compare
from tral_monai.report.nuclei.features import FeatureMap, project
from tral_monai.report.nuclei.run_data import NucleusRunData
from tral_monai.report.palette import chart_styles

MakeRun = Callable[..., NucleusRunData]


def comments(svg: str) -> str:
    """matplotlib writes the text that it draws as outlines into comments."""
    return " ".join(part.split("-->")[0] for part in svg.split("<!--")[1:])


def features() -> FeatureMap:
    x = np.random.default_rng(0).normal(size=(30, 5))
    prototypes = np.stack([x[:20].mean(axis=0), x[20:].mean(axis=0)])
    points, anchors, explained = project(x, prototypes)
    return FeatureMap(3, points, np.arange(30) < 20, anchors, 30, 0.8, "pca", explained)


def all_charts(run: NucleusRunData, other: NucleusRunData) -> list[str]:
    comparison = compare([run, other])
    assert comparison is not None
    return [
        charts.detection_chart(run, chart_styles(run.classes)),
        charts.query_chart(run),
        charts.unknown_chart(run),
        charts.feature_chart(features()),
        charts.comparison_chart(comparison),
    ]


def test_charts_are_svg_that_says_what_it_shows_and_the_same_each_time(make_run: MakeRun) -> None:
    run, other = make_run("a"), make_run("b", strategy="random")
    first = all_charts(run, other)
    for svg in first:
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert all_charts(run, other) == first
    detection, query, unknown, plane, comparison = map(comments, first)
    for text in ("images labelled", "boxes drawn", "annotator minutes", "mAP, test", "any known nucleus", "Tum", "Lym"):
        assert text in detection
    for text in ("asked for", "the pool", "known", "unknown", "round"):
        assert text in query
    assert "detections on unknown" in unknown
    for text in ("prototype of known", "prototype of unknown", "principal component 2"):
        assert text in plane
    for text in ("osal_nd", "random", "boxes drawn", "known nuclei gathered"):
        assert text in comparison


def test_rounds_and_counts_have_whole_numbers_at_their_axes(make_run: MakeRun) -> None:
    """A run of two rounds has one query: its axis once went 0.45, 0.60, 0.75, and that of counts 0.01, 0.02."""
    for svg in (charts.unknown_chart(make_run("a")), charts.query_chart(make_run("b", queried={1: [0, 1]}))):
        assert not [word for word in comments(svg).split() if "." in word]


def test_a_pool_that_nobody_knows_has_no_line(make_run: MakeRun) -> None:
    assert "the pool" not in comments(charts.query_chart(make_run(table=False)))


def test_names_are_drawn_as_they_are(make_run: MakeRun) -> None:
    run = make_run(classes=["$\\alpha$ <b>", "Lym"])
    assert "$\\alpha$ &lt;b&gt;" in comments(charts.detection_chart(run, chart_styles(run.classes)))


def test_a_class_without_any_score_draws_nothing_and_fails_nothing(make_run: MakeRun) -> None:
    run = make_run(scores={(1, "test"): float("nan"), (2, "test"): float("nan")})
    ElementTree.fromstring(charts.detection_chart(run, chart_styles(run.classes)))


def test_the_comparison_as_a_picture(make_run: MakeRun, tmp_path: Path) -> None:
    comparison = compare([make_run("a"), make_run("b", seed=1), make_run("c", strategy="random")])
    assert comparison is not None
    charts.comparison_png(comparison, tmp_path / "c.png", dpi=50)
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (380, 280)
        assert len(image.convert("RGB").getcolors(100_000) or ()) > 20
