# SPDX-License-Identifier: Apache-2.0
"""The step that puts the run's model where people look for it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tral_monai.atomic_file import atomic_path, remove_half_written
from tral_monai.errors import ConfigError
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.training import MODEL_FILE


class PublishHandler:
    """Keep ``<output_dir>/model.pt`` the run's model so far, replaced as a whole after each round.

    Args:
        which: ``best`` publishes the round with the highest value of ``metric`` (the later one of equals), ``last``
            the latest round's, as the paper evaluates it.
        metric: name in the ledger, such as ``f1_macro`` or ``map50``.
        split: split that it is measured on; choosing on the test split would flatter the model.
        also: further files of a round's folder, such as an auxiliary model; of each, the newest is kept beside.

    Raises:
        ConfigError: ``which`` is neither.
    """

    def __init__(
        self,
        which: Literal["best", "last"] = "best",
        *,
        metric: str = "f1_macro",
        split: str = "val",
        also: Sequence[str] = (),
    ) -> None:
        if which not in ("best", "last"):
            raise ConfigError(f"which must be 'best' or 'last', but is {which!r}")
        self._which, self._metric, self._split, self._also = which, metric, split, tuple(also)

    def attach(self, engine: RoundEngine) -> None:
        """Act when a round is complete."""
        engine.add_event_handler(RoundEvents.ROUND_COMPLETED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Publish this round's model where it is the one."""
        assert engine.model_path is not None, "TrainHandler sets the model; attach it too"
        for name in self._also:
            if (engine.round_dir / name).is_file():
                _replace(engine.output_dir / name, engine.round_dir / name)
        if self._which == "best" and best_round(engine, self._metric, self._split) != engine.round:
            return
        _replace(engine.output_dir / MODEL_FILE, engine.model_path)
        engine.ledger.record_info({"published_round": engine.round})


def _replace(target: Path, source: Path) -> None:
    remove_half_written(target.parent, target.stem)  # by killed runs; a model can be large
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def best_round(engine: RoundEngine, metric: str = "f1_macro", split: str = "val") -> int:
    """The round with the highest value of a metric among those up to the engine's; the later one of equals."""
    table = engine.ledger.table("metrics")
    rows = table[(table["split"] == split) & (table["name"] == metric) & (table["round"] <= engine.round)]
    scores = {int(r): float(v) for r, v in zip(rows["round"], rows["value"], strict=True) if not math.isnan(v)}
    return max(scores, key=lambda r: (scores[r], r)) if scores else engine.round
