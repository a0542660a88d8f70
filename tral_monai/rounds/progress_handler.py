# SPDX-License-Identifier: Apache-2.0
"""What a person at the terminal sees of a run while it goes on."""

from __future__ import annotations

from collections import Counter

from ignite.engine import Events
from rich.console import Console
from rich.markup import escape

from tral_monai.rounds.engine import RoundEngine, RoundEvents


class ProgressHandler:
    """Print one line for each stage of a round: what is trained on, how well, and what is asked for next.

    Args:
        title: how the run is called, such as its strategy.
        splits: splits whose macro F1 is shown.
        console: where to print; standard output by default.
    """

    def __init__(
        self, title: str, *, splits: tuple[str, ...] = ("val", "test"), console: Console | None = None
    ) -> None:
        self._title, self._splits = title, splits
        self._console = console or Console(highlight=False, soft_wrap=True)

    def attach(self, engine: RoundEngine) -> None:
        """Bind to the stages; attach it after the handlers whose results it shows."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self.show_round)
        engine.add_event_handler(RoundEvents.EVALUATED, self.show_scores)
        engine.add_event_handler(RoundEvents.LABELLED, self.show_labels)
        engine.add_event_handler(Events.COMPLETED, self.show_end)

    def __call__(self, engine: RoundEngine) -> None:
        """Show what the run starts with."""
        done = len(engine.ledger.table("models"))
        going_on = f", going on after {done} trained rounds" if done else ""
        self._print(
            f"[bold]{escape(self._title)}[/]  {len(engine.pool)} tiles in the pool, "
            f"{len(engine.pool.labelled)} labelled, {engine.rounds} rounds{going_on}"
        )

    def show_round(self, engine: RoundEngine) -> None:
        """Show which round trains on how many labels."""
        if engine.ledger.model(engine.round) is None:
            n = len(engine.ledger.labels(before_round=engine.round))
            self._print(f"round {engine.round}/{engine.rounds}  training on {n} labels ...")

    def show_scores(self, engine: RoundEngine) -> None:
        """Show macro F1 and how long training took."""
        model = engine.ledger.model(engine.round)
        metrics = engine.ledger.table("metrics")
        rows = metrics[(metrics["round"] == engine.round) & (metrics["name"] == "f1_macro")]
        scores = dict(zip(rows["split"], rows["value"], strict=True))
        shown = ", ".join(f"{split} [bold]{scores[split]:.3f}[/]" for split in self._splits if split in scores)
        took = f"{model.epochs} epochs in {model.seconds:.0f} s" if model else "no model"
        figures = f"macro F1 {shown}" if shown else "no macro F1"
        self._print(f"round {engine.round}/{engine.rounds}  {figures}  ({took})")

    def show_labels(self, engine: RoundEngine) -> None:
        """Show what was asked for."""
        asked = Counter(row.class_asked or "any class" for row in engine.query)
        text = ", ".join(f"{count} {escape(name)}" for name, count in asked.most_common())
        self._print(f"round {engine.round}/{engine.rounds}  asked for {len(engine.query)} labels: {text}")

    def show_end(self, engine: RoundEngine) -> None:
        """Show why the run ended early, if it did."""
        if engine.stop_reason:
            self._print(f"stopped after round {engine.round}: {escape(engine.stop_reason)}")

    def _print(self, text: str) -> None:
        self._console.print(text)
