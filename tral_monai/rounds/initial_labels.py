# SPDX-License-Identifier: Apache-2.0
"""The labels that the first training starts from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from ignite.engine import Events

from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine
from tral_monai.rounds.label_handler import record_answers
from tral_monai.rounds.oracles import Oracle


class InitialLabels:
    """Label a starting set once, before round 1: so many per class, or a fraction of all.

    With ``per_class``, the starting set is drawn from the pool's rows of one split, so that a run can start from one
    hospital (``train``) and ask in another (``pool``). A ``fraction`` is one of all rows, whatever their split: the
    supervised arms train on a part of what an active-learning run could ask for.

    Args:
        index: triplet index of the pool with ``id, slide, x_level0, y_level0, class, split``.
        oracle: who gives the labels.
        classes: class names in the network's order.
        per_class: tiles of each class (the paper's 25,000); a class with fewer gives all it has.
        fraction: instead, this fraction of all tiles, drawn at random (the paper's supervised arms).
        split: the split that ``per_class`` draws from.

    Raises:
        ConfigError: not exactly one of ``per_class`` and ``fraction`` is given, one is out of range, or the split has
            no rows.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        oracle: Oracle,
        classes: Sequence[str],
        *,
        per_class: int | None = None,
        fraction: float | None = None,
        split: str = "train",
    ) -> None:
        if (per_class is None) == (fraction is None):
            raise ConfigError(f"give either per_class or fraction, not per_class={per_class} and fraction={fraction}")
        if per_class is not None and per_class < 1:
            raise ConfigError(f"per_class must be 1 or more, but is {per_class}")
        if fraction is not None and not 0 < fraction <= 1:
            raise ConfigError(f"fraction must lie in (0, 1], but is {fraction}")
        self._rows = index if fraction is not None else index[index["split"] == split]
        if self._rows.empty:
            raise ConfigError(f"no tile of the index is in split '{split}', from which the first labels come")
        self._index, self._oracle, self._classes = index, oracle, tuple(classes)
        self._per_class, self._fraction = per_class, fraction

    def attach(self, engine: RoundEngine) -> None:
        """Act when the run starts, after the pool is restored from the ledger."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Label the starting set unless the ledger holds it."""
        labels = engine.ledger.labels()
        if (labels["round"] == 0).any():
            return
        ids = self._draw(engine.generator("initial"))
        record_answers(engine, 0, self._oracle.label(ids), self._index, self._classes)

    def _draw(self, generator: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        rows = self._rows.sort_values("id")
        if self._fraction is not None:
            ids = rows["id"].to_numpy(np.int64)
            return np.sort(generator.permutation(ids)[: max(1, round(self._fraction * len(ids)))])
        drawn = [
            generator.permutation(group["id"].to_numpy(np.int64))[: self._per_class]
            for _, group in rows.groupby("class", sort=True)
        ]
        return np.sort(np.concatenate(drawn))
