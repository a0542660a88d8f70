# SPDX-License-Identifier: Apache-2.0
"""The step of the loop that keeps CSV files and report of a run up to date."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from tral_monai.report.kind import three_lines, write_csvs, write_report
from tral_monai.rounds.engine import RoundEngine, RoundEvents

logger = logging.getLogger(__name__)


class ReportHandler:
    """Writes ``summary.csv`` and ``queries.csv`` after every round and ``report.html`` when the run ends.

    All three are derived from the ledger: they can be deleted and are written again. A tissue run and a nucleus run
    (its ledger says ``task: nuclei``) each get their own.

    Args:
        output_dir: the run's folder, which holds the ledger.
        html: write the HTML; without it only the CSV files, which is enough in a sweep over many runs.
        every_round: write the HTML after every round too, to look at a run that is going on.
        compare_with: folders of finished runs that are laid over the curves.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        html: bool = True,
        every_round: bool = False,
        compare_with: Sequence[str | Path] = (),
    ) -> None:
        self.output_dir, self.html = Path(output_dir), html
        self.every_round = every_round
        self.compare_with = tuple(Path(folder) for folder in compare_with)

    def attach(self, engine: RoundEngine) -> None:
        """Bind to the end of a round and to the end of the run."""
        engine.add_event_handler(RoundEvents.ROUND_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def __call__(self, engine: Engine) -> None:
        """Write the CSV files, and the HTML where every round was asked for."""
        write_csvs(self.output_dir)
        if self.html and self.every_round:
            self._write_html()

    def finish(self, engine: Engine) -> None:
        """Write all files and log the three lines."""
        write_csvs(self.output_dir)
        if not self.html:
            return
        path = self._write_html()
        logger.info("report: %s\n%s", path, "\n".join(three_lines([self.output_dir, *self.compare_with])))

    def _write_html(self) -> Path:
        return write_report([self.output_dir, *self.compare_with])
