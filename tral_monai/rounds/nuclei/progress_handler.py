# SPDX-License-Identifier: Apache-2.0
"""What a person at the terminal sees of a run on nuclei while it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from tral_monai.data.nuclei.open_set import IGNORED, UNKNOWN
from tral_monai.rounds.engine import RoundEngine
from tral_monai.rounds.progress_handler import ProgressHandler


class FieldProgressHandler(ProgressHandler):
    """Print one line for each stage of a round: what is trained on, how well, what is asked for and what it cost.

    Args:
        title: how the run is called, such as its strategy.
        splits: splits whose mean AP is shown.
        console: where to print; standard output by default.
    """

    def __init__(self, title: str, *, splits: Sequence[str] = ("val", "test"), console: Console | None = None) -> None:
        super().__init__(title, splits=tuple(splits), console=console)

    def __call__(self, engine: RoundEngine) -> None:
        """Show what the run starts with."""
        done = len(engine.ledger.table("models"))
        going_on = f", going on after {done} trained rounds" if done else ""
        self._print(
            f"[bold]{escape(self._title)}[/]  {len(engine.pool)} fields of view in the pool, "
            f"{len(engine.pool.labelled)} annotated, {engine.rounds} rounds{going_on}"
        )

    def show_round(self, engine: RoundEngine) -> None:
        """Show what the round trains on and what that cost."""
        if engine.ledger.model(engine.round) is None:
            labels = engine.ledger.labels(before_round=engine.round)
            self._line(
                engine,
                f"training on {len(labels)} fields of view, {labels['cost_labels'].sum():.0f} boxes, "
                f"{labels['cost_minutes'].sum():.0f} minutes ...",
            )

    def show_scores(self, engine: RoundEngine) -> None:
        """Show mean AP, detections on unknown nuclei and how long training took."""
        shown = []
        for split in self._splits:
            metrics = engine.ledger.metrics(engine.round, split)
            value = metrics.get("map50", math.nan)
            if not math.isnan(value):
                shown.append(f"{split} [bold]{value:.3f}[/], {metrics.get('fp_on_unknown', 0.0):.0f} on unknown nuclei")
        model = engine.ledger.model(engine.round)
        took = f"{model.epochs} epochs in {model.seconds:.0f} s" if model else "no model"
        self._line(engine, f"{'mAP@0.5 ' + '; '.join(shown) if shown else 'no mAP'}  ({took})")

    def show_labels(self, engine: RoundEngine) -> None:
        """Show what came back for what was asked."""
        asked = {row.sample_id for row in engine.query}
        nuclei = engine.ledger.nuclei()
        answers = nuclei.loc[nuclei["sample_id"].isin(asked), "answer"]
        known = int((~answers.isin([UNKNOWN, IGNORED])).sum())
        self._line(
            engine,
            f"asked for {len(asked)} fields of view: {known} known and {int((answers == UNKNOWN).sum())} unknown "
            f"of {len(answers)} nuclei",
        )

    def _line(self, engine: RoundEngine, text: str) -> None:
        self._print(f"round {engine.round}/{engine.rounds}  {text}")
