# SPDX-License-Identifier: Apache-2.0
"""``python -m tral_monai report runs/x runs/y``: the report of a run, compared with others."""

from __future__ import annotations

import argparse

from tral_monai.report.page import write_report
from tral_monai.report.run_data import RunData
from tral_monai.report.summary import three_lines, write_csvs


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
    data = RunData.from_folder(arguments.run_dir)
    if arguments.output is None:
        write_csvs(data, data.folder)
    print(f"report: {path}")
    for line in three_lines(data, [RunData.from_folder(folder) for folder in arguments.others]):
        print(line)
    return 0
