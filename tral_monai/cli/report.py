# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai report runs/x runs/y``: the report of a run, compared with others."""

from __future__ import annotations

import argparse

from tral_monai.report.kind import three_lines, write_csvs, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments.

    Args:
        parser: the command's parser.
    """
    parser.epilog = (
        "Without --output, summary.csv and queries.csv of the first run are written anew too. Maps of the final model "
        "are shown where inference wrote them to maps/ in the first run's folder."
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="output folder of the run to report")
    parser.add_argument(
        "others",
        metavar="RUN_DIR",
        nargs="*",
        help="runs laid over its curves; those of the same strategy count as further seeds",
    )
    parser.add_argument("--output", metavar="HTML", help="the file to write (RUN_DIR/report.html)")


def run(arguments: argparse.Namespace) -> int:
    """Write the report, print where it is and what was learnt.

    Args:
        arguments: from the command's parser.

    Returns:
        0.
    """
    path = write_report([arguments.run_dir, *arguments.others], arguments.output)
    if arguments.output is None:
        write_csvs(arguments.run_dir)
    print(f"report: {path}")
    for line in three_lines([arguments.run_dir, *arguments.others]):
        print(line)
    return 0
