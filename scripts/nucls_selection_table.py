# SPDX-License-Identifier: Apache-2.0
"""How many known nuclei a selection of NuCLS's fields gains, from the annotations alone, without any detector.

For each open-set setting: the known nuclei (and their purity) in 15 % of the fields of view when these are chosen at
random, by their total count of nuclei, and by an oracle that knows the known count. The density share says how much of
the oracle's gain the total count alone brings. Takes any NuCLS folder: csv/ with or without rgb/, or the tables
annotations.csv and fovs.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tral_monai.errors import TralError

if TYPE_CHECKING:
    from tral_monai.annotations.nuclei.selection_counts import Selected, SelectionTable

SETTINGS = ("5+2", "4+3", "3+4")


def rows(tables: dict[str, SelectionTable]) -> list[list[str]]:
    """The table as text: a line of names, then one line per rule or figure."""

    def cell(chosen: Selected) -> str:
        return f"{chosen.known:,.0f} ({chosen.purity:.3f})"

    each = tables.values()
    return [
        ["", *(f"{setting} known (purity)" for setting in tables)],
        ["random", *(cell(table.random) for table in each)],
        ["total count", *(cell(table.total_count) for table in each)],
        ["oracle known count", *(cell(table.oracle) for table in each)],
        ["density share of the oracle's gain", *(f"{table.density_share:.1%}" for table in each)],
        ["unknown share of classified nuclei", *(f"{table.unknown_share:.1%}" for table in each)],
        ["fields with any unknown nucleus", *(f"{table.fields_with_unknown:.1%}" for table in each)],
        ["rank correlation of known and total count", *(f"{table.rank_correlation:.2f}" for table in each)],
    ]


def to_markdown(lines: list[list[str]]) -> str:
    """A markdown table with figures to the right."""
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|---|" + "---:|" * (len(lines[0]) - 1))
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="folder of NuCLS")
    parser.add_argument("--fraction", type=float, default=0.15, help="share of the fields to choose (default: 0.15)")
    parser.add_argument("--seeds", type=int, default=100, help="random choices to average (default: 100)")
    parser.add_argument(
        "--area",
        choices=["image", "fov"],
        default="image",
        help="count every annotated nucleus (image, default), or those at least half inside the field of view (fov)",
    )
    parser.add_argument("--output", type=Path, help="markdown file to write")
    args = parser.parse_args()

    from tral_monai.annotations.nuclei.data_sets import known_classes
    from tral_monai.annotations.nuclei.nucls import read_nucls
    from tral_monai.annotations.nuclei.selection_counts import count_nuclei, selection_table
    from tral_monai.atomic_file import atomic_path

    console = Console(highlight=False)
    try:
        problems: list[str] = []
        fields = read_nucls(args.dataset_dir, area=args.area, problems=problems)
        for problem in problems:
            console.print(problem, style="yellow", markup=False)
        tables = {
            setting: selection_table(
                count_nuclei(fields, known_classes("nucls", setting)), fraction=args.fraction, seeds=args.seeds
            )
            for setting in SETTINGS
        }
    except TralError as error:
        parser.exit(1, f"error: {error}\n")
    any_table = tables[SETTINGS[0]]
    lines = rows(tables)
    lines[0][0] = f"{any_table.chosen} of {any_table.fields} fields"
    shown = Table(*lines[0])
    for column in shown.columns[1:]:
        column.justify = "right"
    for line in lines[1:]:
        shown.add_row(*line)
    console.print(shown)
    if args.output:
        with atomic_path(args.output) as temporary:
            temporary.write_text(to_markdown(lines), encoding="utf-8")
        console.print(f"written: {args.output}")


if __name__ == "__main__":
    main()
