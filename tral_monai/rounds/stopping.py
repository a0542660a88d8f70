# SPDX-License-Identifier: Apache-2.0
"""Rules that end a run before its last round."""

from __future__ import annotations

from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine, RoundEvents


class StopAtTarget:
    """Stop when a validation metric is good enough.

    Args:
        target: value to reach.
        metric: name in the ledger, such as ``f1_macro`` or ``Stroma_f1``.
        split: split that it is measured on.
    """

    def __init__(self, target: float, *, metric: str = "f1_macro", split: str = "val") -> None:
        self._target, self._metric, self._split = float(target), metric, split

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round is evaluated; attach it before the query handler."""
        engine.add_event_handler(RoundEvents.EVALUATED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Stop the engine where the target is reached."""
        value = metric_history(engine, self._metric, self._split)[-1]
        if value >= self._target:
            engine.stop(f"{self._metric} on {self._split} is {value:.3f} and reached the target {self._target:.3f}")


class StopOnPlateau:
    """Stop when a validation metric has not grown for some rounds.

    Args:
        patience: rounds without growth.
        min_delta: growth that counts.
        metric: name in the ledger.
        split: split that it is measured on.

    Raises:
        ConfigError: ``patience`` is below 1.
    """

    def __init__(self, patience: int, *, min_delta: float = 0.0, metric: str = "f1_macro", split: str = "val") -> None:
        if patience < 1:
            raise ConfigError(f"patience must be 1 round or more, but is {patience}")
        self._patience, self._min_delta, self._metric, self._split = int(patience), float(min_delta), metric, split

    def attach(self, engine: RoundEngine) -> None:
        """Act when the round is evaluated; attach it before the query handler."""
        engine.add_event_handler(RoundEvents.EVALUATED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Stop the engine where nothing has grown; the history is read from the ledger, so a resumed run agrees."""
        history = metric_history(engine, self._metric, self._split)
        before, recent = history[: -self._patience], history[-self._patience :]
        if before and max(recent) <= max(before) + self._min_delta:
            engine.stop(f"{self._metric} on {self._split} has not grown for {self._patience} rounds")


def metric_history(engine: RoundEngine, metric: str, split: str) -> list[float]:
    """Values of a metric in the rounds up to this one.

    Raises:
        ConfigError: the metric was not recorded in this round.
    """
    table = engine.ledger.table("metrics")
    rows = table[(table["split"] == split) & (table["name"] == metric) & (table["round"] <= engine.round)]
    if engine.round not in set(rows["round"]):
        names = sorted(set(table.loc[table["split"] == split, "name"]))
        raise ConfigError(f"no metric '{metric}' on split '{split}' in round {engine.round}; there are {names}")
    return [float(value) for value in rows.sort_values("round")["value"]]
