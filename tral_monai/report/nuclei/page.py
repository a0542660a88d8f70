# SPDX-License-Identifier: Apache-2.0
"""The report of a nucleus run as one HTML text that needs nothing else: no script, no font, no address."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from tral_monai.atomic_file import atomic_path
from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.report.nuclei import charts
from tral_monai.report.nuclei.comparison import NucleusComparison, compare, fold_ratio
from tral_monai.report.nuclei.features import read_feature_map
from tral_monai.report.nuclei.fields import SHOWN_SCORE, round_fields
from tral_monai.report.nuclei.run_data import AXES, CLASS_AGNOSTIC, FP_ON_UNKNOWN, MAP50, NucleusRunData, QueryYield
from tral_monai.report.nuclei.strategy_table import COMPARED, CONTROL, PERCENT, TITLES, per_run, per_strategy
from tral_monai.report.nuclei.summary import three_lines
from tral_monai.report.page import PAGE_FILTERS, environment, split_line, template_text
from tral_monai.report.palette import chart_styles, ink_on, map_colors
from tral_monai.report.provenance import Provenance, model_row, provenance
from tral_monai.report.summary import UNKNOWN as UNDEFINED
from tral_monai.report.summary import count

ANSWER_COLORS = {UNKNOWN: "#1a1a1a", IGNORED: "#5c5c5c"}
PERSON_ORACLES = ("person", "monai_label", "datastore")


@dataclass(frozen=True)
class ScoreRow:
    """A detection score on each split in its first and last round, and the nuclei that it was trained on."""

    name: str
    average: bool
    first: dict[str, float]
    last: dict[str, float]
    trained_on: int | None


@dataclass(frozen=True)
class QueryLine:
    """One round's answers beside the pool that they came from; pool figures are NaN where nobody knows them."""

    round: int
    found: QueryYield
    images_total: int
    boxes_total: float
    pool_purity: float
    pool_known_per_image: float


def render_report(
    run: NucleusRunData, others: Sequence[NucleusRunData] = (), *, projection: Literal["pca", "tsne"] = "pca"
) -> str:
    """The report of ``run``, with ``others`` laid over its curves, as HTML text.

    The same ledgers and images give the same text: it holds no time of its own making.

    Args:
        run: the run to report.
        others: runs to compare with; those of the same strategy count as further seeds or folds.
        projection: how RoI features are brought into the plane.

    Raises:
        LedgerError: the runs do not share their known and unknown classes.
    """
    jinja = environment(jinja2.PackageLoader("tral_monai.report.nuclei"))
    jinja.filters.update(PAGE_FILTERS, purity=_purity)
    jinja.globals.update(count=count, counted=_counted, ink_on=ink_on)
    return jinja.get_template("nuclei_report.html").render(**_context(run, others, projection))


def write_report(
    run_dirs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    projection: Literal["pca", "tsne"] = "pca",
) -> Path:
    """Write the report of the first run folder, compared with the others.

    Args:
        run_dirs: folders of nucleus runs, the one to report first.
        output: the HTML file; ``report.html`` in the first folder where None.
        projection: how RoI features are brought into the plane.

    Returns:
        The file's path. It is replaced in one step.

    Raises:
        LedgerError: a folder holds no run, or the runs do not share their known and unknown classes.
    """
    runs = [NucleusRunData.from_folder(folder) for folder in run_dirs]
    path = Path(output) if output is not None else runs[0].folder / "report.html"
    html = render_report(runs[0], runs[1:], projection=projection)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def _context(
    run: NucleusRunData, others: Sequence[NucleusRunData], projection: Literal["pca", "tsne"]
) -> dict[str, Any]:
    colors = map_colors(run.classes, _class_colors(run))
    styles = {name: style._replace(color=colors[name]) for name, style in chart_styles(run.classes).items()}
    evaluated = run.main_split is not None and len(run.curve(MAP50, run.main_split).rounds) > 0
    last = int(run.curve(MAP50, run.main_split or "").rounds[-1]) if evaluated else None
    comparison = compare([run, *others]) if others else None
    fields, problems = round_fields(run)
    features, features_problem = read_feature_map(run.folder, method=projection)
    lines = [_query_line(run, round_, found) for round_, found in run.yields.items()]
    return {
        "run": run,
        "css": Markup(template_text("report.css") + _own_css()),  # our own files, nothing of the run's in them
        "lines": [split_line(line) for line in three_lines(run, others)],
        "styles": styles,
        "map_colors": colors,
        "answer_colors": {**colors, **ANSWER_COLORS},
        "answers": (*run.classes, UNKNOWN, IGNORED),
        "axes": AXES,
        "last": last,
        "scores": _scores(run) if evaluated else [],
        "detection_chart": charts.detection_chart(run, styles) if evaluated else None,
        "compared": bool(others),
        "comparison": comparison,
        "comparison_chart": None if comparison is None else charts.comparison_chart(comparison),
        "strategies": [] if comparison is None else _strategies(comparison),
        "titles": TITLES,
        "widened": comparison is not None and fold_ratio(comparison.runs) is not None,
        "control": CONTROL,
        "queries": lines,
        "query_chart": charts.query_chart(run) if run.queried else None,
        "fields": fields,
        "shown_score": SHOWN_SCORE,
        "problems": problems,
        "features": features,
        "features_problem": features_problem,
        "feature_chart": None if features is None else charts.feature_chart(features),
        "unknown_rows": _unknown_rows(run),
        "unknown_chart": charts.unknown_chart(run) if evaluated and _unknown_rows(run) else None,
        "simulated": run.settings.get("oracle") not in PERSON_ORACLES,
        "provenance": _provenance(run),
    }


def _scores(run: NucleusRunData) -> list[ScoreRow]:
    assert run.main_split is not None
    last_round = int(run.curve(MAP50, run.main_split).rounds[-1])
    counts = dict(zip(run.classes, run.class_counts(last_round).tolist(), strict=True))
    rows = []
    for title, name, average in [
        *((name, f"{name}_ap50", False) for name in run.classes),
        ("mAP@0.5", MAP50, True),
        ("any known nucleus", CLASS_AGNOSTIC, True),
    ]:
        curves = {split: run.curve(name, split) for split in run.splits}
        if not any(len(curve.values) for curve in curves.values()):
            continue
        first = {split: float(c.values[0]) if len(c.values) else math.nan for split, c in curves.items()}
        last = {split: float(c.values[-1]) if len(c.values) else math.nan for split, c in curves.items()}
        rows.append(ScoreRow(title, average, first, last, sum(counts.values()) if average else counts[title]))
    return rows


def _query_line(run: NucleusRunData, round_: int, found: QueryYield) -> QueryLine:
    rate = run.pool_rate(round_)
    return QueryLine(
        round=round_,
        found=found,
        images_total=int(run.spent("images", round_ + 1)),
        boxes_total=run.spent("boxes", round_ + 1),
        pool_purity=math.nan if rate is None else rate.purity,
        pool_known_per_image=math.nan if rate is None else rate.known_per_image,
    )


def _unknown_rows(run: NucleusRunData) -> list[tuple[int, float, float]]:
    """Round, detections on unknown nuclei of the main split, and these per unknown nucleus (NaN where not recorded)."""
    if run.main_split is None:
        return []
    rounds = run.curve(FP_ON_UNKNOWN, run.main_split).rounds.tolist()
    per_nucleus = f"{FP_ON_UNKNOWN}_per_nucleus"
    return [(r, *(run.metric(r, run.main_split, name) for name in (FP_ON_UNKNOWN, per_nucleus))) for r in rounds]


def _strategies(comparison: NucleusComparison) -> list[dict[str, Any]]:
    """One row per strategy: name, runs, and per column (mean, sd) and (difference, low, high, p), NaN where unknown."""
    table = per_strategy(per_run(comparison), ratio=fold_ratio(comparison.runs))
    rows = []
    for _, row in table.iterrows():
        cells = {
            name: {
                "mean": float(row[f"{name}_mean"]),
                "sd": float(row[f"{name}_sd"]),
                "percent": name in PERCENT,
                "against": [
                    float(row.get(f"{name}_{of}", math.nan)) for of in (f"minus_{CONTROL}", "low", "high", "p")
                ],
            }
            for name in COMPARED
        }
        rows.append({"strategy": str(row["strategy"]), "runs": int(row["runs"]), "cells": cells})
    return rows


def _provenance(run: NucleusRunData) -> Provenance:
    """The provenance of any run, with the auxiliary detectors beside the target detectors."""
    found = provenance(run)
    models = list(found.models)
    for row in run.tables["auxiliary_models"].sort_values(["round", "role"]).itertuples(index=False):
        model = model_row(row)
        models.append(dataclasses.replace(model, file=f"{model.file} ({row.role})"))
    return dataclasses.replace(found, models=tuple(sorted(models, key=lambda model: model.round)))


def _class_colors(run: NucleusRunData) -> dict[str, Sequence[int]] | None:
    recorded = run.settings.get("class_colors")
    return recorded if isinstance(recorded, dict) else None


def _own_css() -> str:
    return (Path(__file__).parent / "templates" / "nuclei.css").read_text(encoding="utf-8")


def _purity(value: float) -> str:
    """A share in percent, with a decimal where it would else read 100 % although something is missing."""
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.1%}" if 0.99 < value < 1 else f"{value:.0%}"


def _counted(value: float, one: str, many: str) -> str:
    """A count with a noun whose plural is not made with an s alone."""
    return f"{value:,.0f} {one if value == 1 else many}"
