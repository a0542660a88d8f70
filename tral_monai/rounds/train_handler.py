# SPDX-License-Identifier: Apache-2.0
"""The step that trains: the bundle's own ``train.yaml``, built anew each round with that round's labels."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tral_monai.atomic_file import atomic_path
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.bundle_run import check_overrides
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.training import MODEL_FILE, run_training

logger = logging.getLogger(__name__)


class TrainHandler:
    """Train the round's model with a bundle's training workflow.

    The workflow gets ``train_samples`` and ``val_samples`` (parquet files), ``output_dir`` (where it must leave
    ``model.pt``, the best epoch by validation loss), ``checkpoint`` (the previous round's model, with ``warm_start``)
    and ``seed``, besides ``overrides``. Engines, optimiser and schedule are new in each round: re-used ones would keep
    an earlier best metric and a decayed learning rate.

    Args:
        config_file: training configuration, or several of which later ones override earlier ones.
        index: triplet index of the pool; the labelled rows are trained on with the class that the oracle gave.
        val_index: triplet index of the validation split.
        overrides: values for ids of the configuration.
        warm_start: begin from the previous round's model (the paper) rather than from ``initial_checkpoint``.
        initial_checkpoint: where the first training begins; None begins with the backbone's own weights.

    Raises:
        ConfigError: a configuration is missing, an override names an id that it does not have, or there are no
            validation rows.
    """

    def __init__(
        self,
        config_file: str | Path | Sequence[str | Path],
        index: pd.DataFrame,
        val_index: pd.DataFrame,
        *,
        overrides: Mapping[str, Any] | None = None,
        warm_start: bool = True,
        initial_checkpoint: str | None = None,
    ) -> None:
        if val_index.empty:
            raise ConfigError("no tile is in split 'val': training stops by the loss on it; give the cohort val slides")
        files = [config_file] if isinstance(config_file, (str, Path)) else config_file
        self._config_files = [str(file) for file in files]
        self._index, self._val_index = index, val_index
        self._overrides, self._warm_start = dict(overrides or {}), warm_start
        self._initial_checkpoint = initial_checkpoint
        check_overrides(self._config_files, self._overrides)

    def attach(self, engine: RoundEngine) -> None:
        """Act when a round starts."""
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Train, unless the ledger holds the round's model and its file is unchanged."""
        path = engine.round_dir / MODEL_FILE
        record = engine.ledger.model(engine.round)
        if record is not None and path.is_file() and file_sha256(path) == record.sha256:
            engine.model_path = path
            return
        if record is not None:
            logger.warning(
                "%s is missing or changed since it was recorded; training round %d again", path, engine.round
            )
        started = time.monotonic()
        epochs, val_loss = self._train(engine)
        sha256 = file_sha256(path)
        relative = path.relative_to(engine.output_dir).as_posix()
        engine.ledger.record_model(
            engine.round, ModelRecord(relative, sha256, round(time.monotonic() - started, 3), epochs, val_loss)
        )
        engine.model_path = path

    def _train(self, engine: RoundEngine) -> tuple[int, float | None]:
        folder = engine.round_dir
        shutil.rmtree(folder, ignore_errors=True)  # what a killed training left
        folder.mkdir(parents=True)
        for name, table in (("train", self._samples(engine)), ("val", self._val_index)):
            with atomic_path(folder / f"{name}.parquet") as path:
                table.to_parquet(path)
        overrides = {
            **self._overrides,
            "train_samples": str(folder / "train.parquet"),
            "val_samples": str(folder / "val.parquet"),
            "output_dir": str(folder),
            "checkpoint": self._start(engine),
            "seed": int(engine.generator("train").integers(2**31)),
        }
        outcome = run_training(self._config_files, overrides)
        return outcome.epochs, outcome.val_loss

    def _samples(self, engine: RoundEngine) -> pd.DataFrame:
        labels = engine.ledger.labels(before_round=engine.round).dropna(subset=["class_given"]).set_index("sample_id")
        rows = self._index[self._index["id"].isin(labels.index)].copy()
        if rows.empty:
            raise ConfigError(f"round {engine.round} has no label to train on; attach InitialLabels first")
        rows["class"] = labels.loc[rows["id"], "class_given"].to_numpy()
        return rows.sort_values("id").reset_index(drop=True)

    def _start(self, engine: RoundEngine) -> str | None:
        if engine.round > 1 and self._warm_start:
            return str(engine.output_dir / "rounds" / f"round_{engine.round - 1:03d}" / MODEL_FILE)
        return self._initial_checkpoint
