# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai cohort cohort.csv``: what is in a cohort, and what is wrong with it."""

from __future__ import annotations

import argparse
import logging
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tral_monai.annotations.class_map import ClassMap
from tral_monai.data.class_names import identity_class_map
from tral_monai.data.cohort import SPLITS, Cohort, read_cohort
from tral_monai.data.index_report import IndexReport
from tral_monai.data.triplet_index import build_triplet_index, write_index
from tral_monai.progress import progress_bar

_UNLABELLED = "(unlabelled)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.epilog = "The exit status is 1 where a slide had to be left out. Problems are listed below the tables."
    parser.add_argument("csv", help="the cohort: columns slide, annotations, patient, split and optionally mpp, part")
    parser.add_argument(
        "--class-map",
        metavar="YAML",
        help="rules from names to classes, or 'bladder' for the paper's; without it every name is a class",
    )
    parser.add_argument(
        "--allow-patient-overlap", action="store_true", help="accept a patient on two sides of the split"
    )
    parser.add_argument("--coverage", type=float, default=0.7, help="part of a tile that its class must cover (0.7)")
    parser.add_argument("--stride", type=int, default=128, metavar="PX", help="grid step at 40x, in pixels (128)")
    parser.add_argument("--cap", type=int, metavar="N", help="at most N tiles per slide, split and class")
    parser.add_argument("--seed", type=int, default=0, help="of the draw under the cap (0)")
    parser.add_argument(
        "--tissue", choices=["auto", "paper", "none"], default="auto", help="how tissue is told from glass (auto)"
    )
    parser.add_argument("--index", metavar="PARQUET", help="write the triplet index to this file")


def run(arguments: argparse.Namespace) -> int:
    """Check, build the index, print.

    Args:
        arguments: from the command's parser.

    Returns:
        1 where a slide was left out, else 0.
    """
    logging.getLogger("tral_monai").addHandler(logging.NullHandler())  # the list at the end says it all, once
    cohort = read_cohort(arguments.csv, allow_patient_overlap=arguments.allow_patient_overlap)
    class_map = ClassMap.from_yaml(arguments.class_map) if arguments.class_map else identity_class_map(cohort)
    table = build_triplet_index(
        cohort,
        class_map,
        coverage=arguments.coverage,
        stride_px=arguments.stride,
        cap_per_slide_and_class=arguments.cap,
        tissue_method=None if arguments.tissue == "none" else arguments.tissue,
        seed=arguments.seed,
        progress=progress_bar("slides"),
    )
    report = IndexReport.of(table)
    console = Console(highlight=False)
    console.print(_splits(cohort))
    counts = Counter(zip(table["class"], table["split"], strict=True))
    console.print(_classes(class_map, report, counts, [name for name in SPLITS if cohort.split(name)]))
    if report.dropped_names:
        names = ", ".join(f"{name} ({report.names[name]})" for name in sorted(report.dropped_names))
        console.print(f"Names that the class map leaves out: {escape(names)}", soft_wrap=True)
    for name in sorted(report.names):
        if name == "(unclassified)":
            console.print(f"Outlines without a class, left out: {report.names[name]}")
    if report.contested_tiles:
        console.print(f"Tiles that two classes cover enough, given to the fuller one: {report.contested_tiles}")
    problems = report.lines()
    console.print("No problems." if not problems else "[bold]Problems[/bold]")
    for line in problems:
        console.print(f"  {escape(line)}", soft_wrap=True)
    if arguments.index:
        write_index(table, arguments.index)
        console.print(f"Triplet index: {escape(arguments.index)}", soft_wrap=True)
    return 1 if report.skipped else 0


def _splits(cohort: Cohort) -> Table:
    table = Table("split", title="Slides and patients", title_justify="left")
    for column in ("slides", "patients", "with annotations"):
        table.add_column(column, justify="right")
    for name in (*SPLITS, "all"):
        rows = cohort.rows if name == "all" else cohort.split(name)
        if rows:
            slides = {row.slide for row in rows}
            annotated = {row.slide for row in rows if row.annotations}
            patients = {row.patient for row in rows}
            table.add_row(name, str(len(slides)), str(len(patients)), str(len(annotated)))
    return table


def _classes(class_map: ClassMap, report: IndexReport, counts: Counter[tuple[str, str]], splits: list[str]) -> Table:
    table = Table("class", title="Triplets (area of the outlines in mm²)", title_justify="left")
    for split in splits:
        table.add_column(split, justify="right")
    names = list(class_map.classes) + [name for name in class_map.carve_out if name not in class_map.classes]
    for name in (*names, ""):
        cells = []
        for split in splits:
            count, area = counts[name, split], report.area_mm2.get(split, {}).get(name, 0.0)
            cells.append(f"{count:,} ({area:,.2f})" if area else f"{count:,}" if count else "-")
        if name or any(cell != "-" for cell in cells):
            table.add_row(escape(name or _UNLABELLED), *cells)
    totals = [f"{sum(n for (_, of), n in counts.items() if of == split):,}" for split in splits]
    table.add_section()
    table.add_row("all", *totals)
    return table
