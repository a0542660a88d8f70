# SPDX-License-Identifier: Apache-2.0
"""Tissue run or nucleus run? Files and lines of either, by what its ledger says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tral_monai.errors import LedgerError
from tral_monai.report import page, summary
from tral_monai.report.nuclei import page as nucleus_page
from tral_monai.report.nuclei import summary as nucleus_summary
from tral_monai.report.nuclei.run_data import NucleusRunData
from tral_monai.report.run_data import RunData


def read_run(run_dir: str | Path) -> RunData:
    """A run, as `NucleusRunData` where its ledger says ``task: nuclei``.

    Raises:
        LedgerError: the folder holds no run.
    """
    run = RunData.from_folder(run_dir)
    return NucleusRunData.from_folder(run_dir) if run.settings.get("task") == "nuclei" else run


def write_csvs(run_dir: str | Path) -> tuple[Path, Path]:
    """Write ``summary.csv`` and ``queries.csv`` into a run's folder; returns their paths.

    Raises:
        LedgerError: the folder holds no run.
    """
    run = read_run(run_dir)
    return (nucleus_summary if isinstance(run, NucleusRunData) else summary).write_csvs(run, run.folder)


def write_report(run_dirs: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report of the first run folder, compared with the others; returns its path.

    Raises:
        LedgerError: a folder holds no run, or the runs cannot be compared.
    """
    nuclei = _all_of_one_kind(run_dirs)
    return nucleus_page.write_report(run_dirs, output) if nuclei else page.write_report(run_dirs, output)


def three_lines(run_dirs: Sequence[str | Path]) -> list[str]:
    """What the first run taught, set against the others.

    Raises:
        LedgerError: a folder holds no run, or the runs cannot be compared.
    """
    if _all_of_one_kind(run_dirs):
        first, *others = (NucleusRunData.from_folder(folder) for folder in run_dirs)
        return nucleus_summary.three_lines(first, others)
    run, *rest = (RunData.from_folder(folder) for folder in run_dirs)
    return summary.three_lines(run, rest)


def _all_of_one_kind(run_dirs: Sequence[str | Path]) -> bool:
    """Whether these are nucleus runs; a mixture cannot be compared."""
    runs = [read_run(folder) for folder in run_dirs]
    kinds = {isinstance(run, NucleusRunData) for run in runs}
    if len(kinds) > 1:
        names = ", ".join(f"{run.name} ({'nuclei' if isinstance(run, NucleusRunData) else 'tissue'})" for run in runs)
        raise LedgerError(f"a nucleus run cannot be compared with a tissue run, but the runs are {names}")
    return kinds.pop()
