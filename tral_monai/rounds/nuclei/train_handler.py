# SPDX-License-Identifier: Apache-2.0
"""The step that trains: the bundle's own ``train.yaml``, for the target detector and for the auxiliary one."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tral_monai.data.nuclei.fov_table import write_fovs
from tral_monai.errors import ConfigError
from tral_monai.file_hash import file_sha256
from tral_monai.rounds.bundle_run import check_overrides
from tral_monai.rounds.engine import RoundEngine, RoundEvents
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.nuclei.refit import refit_checkpoint
from tral_monai.rounds.nuclei.shared_training import SharedTrainings
from tral_monai.rounds.nuclei.training_table import training_table
from tral_monai.rounds.training import MODEL_FILE, run_training
from tral_monai.strategies.base import Strategy

logger = logging.getLogger(__name__)

AUXILIARY_FILE = "auxiliary.pt"
_ROUND_IDS = ("role", "loss_prediction", "train_samples", "val_samples", "output_dir", "checkpoint", "seed")
_FILES = ("train_samples", "val_samples", "checkpoint")


class FieldTrainHandler:
    """Train the round's detectors with a bundle's training workflow.

    The target detector is trained in every round. The auxiliary one (``strategy.auxiliary``) is trained on the very
    same fields of view, which is all that the annotator has seen, and only where a query follows: not in the last
    round. Each is recorded by itself, so that a run that was killed between them goes on with the second.

    The workflow gets ``role``, ``loss_prediction``, ``train_samples`` and ``val_samples`` (parquet files with answers,
    or None), ``output_dir`` (where it must leave ``model.pt``), ``checkpoint`` and ``seed``, besides ``overrides``.
    Seeds come from the run's seed and the round alone: arms that differ in their strategy train alike.

    Args:
        config_file: training configuration, or several of which later ones override earlier ones.
        index: fields of view of the pool.
        strategy: tells which detectors it needs.
        val_index: fields of view with answers to watch the target's training with; None or empty for none. These labels
            are free in a simulation only.
        overrides: values for ids of the configuration.
        warm_start: begin from the previous round's detectors; else each round begins anew, which is what the paper's
            comparisons need.
        initial_checkpoint: where the target's training begins otherwise; None begins with the backbone's own weights.
        refit: how prototypes are fitted to all nuclei once the auxiliary detector is trained (``minimise`` or
            ``mean``); None leaves them as training left them.
        shared_dir: folder of trainings that runs have in common, see :class:`SharedTrainings`; None trains always.

    Raises:
        ConfigError: a configuration is missing, an override names an id that it does not have, or the strategy learns
            to predict losses, which takes pairs of fields, and ``batch_size`` is 1.
    """

    def __init__(
        self,
        config_file: str | Path | Sequence[str | Path],
        index: pd.DataFrame,
        strategy: Strategy,
        *,
        val_index: pd.DataFrame | None = None,
        overrides: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        initial_checkpoint: str | None = None,
        refit: Literal["minimise", "mean"] | None = "minimise",
        shared_dir: str | Path | None = None,
    ) -> None:
        files = [config_file] if isinstance(config_file, (str, Path)) else config_file
        self._config_files = [str(file) for file in files]
        self._index, self._strategy = index, strategy
        self._val_index = val_index if val_index is not None and len(val_index) else None
        self._overrides, self._warm_start = dict(overrides or {}), warm_start
        self._initial_checkpoint, self._refit = initial_checkpoint, refit
        self._shared = SharedTrainings(shared_dir) if shared_dir is not None else None
        check_overrides(self._config_files, [*self._overrides, *_ROUND_IDS])
        if strategy.loss_prediction and self._overrides.get("batch_size") == 1:
            raise ConfigError(
                f"{strategy.name} learns from pairs of fields which of two has the higher loss, but batch_size is 1; "
                "make it 2 or more, best an even number"
            )

    def attach(self, engine: RoundEngine) -> None:
        """Act when a round starts."""
        engine.add_event_handler(RoundEvents.ROUND_STARTED, self)

    def __call__(self, engine: RoundEngine) -> None:
        """Train what the ledger does not hold, or whose file is not as it was recorded."""
        path, record = engine.round_dir / MODEL_FILE, engine.ledger.model(engine.round)
        if not _is_there(path, record):
            engine.ledger.record_model(engine.round, self._train(engine, path, "target", record))
        engine.model_path = path
        role = self._strategy.auxiliary
        if role is None or engine.is_last_round or engine.ledger.query(engine.round):
            return
        path, record = engine.round_dir / AUXILIARY_FILE, engine.ledger.auxiliary_model(engine.round, role)
        if not _is_there(path, record):
            engine.ledger.record_auxiliary_model(engine.round, role, self._train(engine, path, role, record))

    def _train(self, engine: RoundEngine, path: Path, role: str, record: ModelRecord | None) -> ModelRecord:
        if record is not None:
            logger.warning("%s is missing or changed since it was recorded; training it again", path)
        folder = engine.round_dir / f"training_{role}"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed training left
        folder.mkdir(parents=True)
        samples = self._samples(engine)
        overrides = {
            **self._overrides,
            "role": role,
            "loss_prediction": role == "target" and self._strategy.loss_prediction,
            **self._tables(engine, samples, role),
            "output_dir": str(folder),
            "checkpoint": self._start(engine, role),
            "seed": int(engine.generator(f"train {role}").integers(2**31)),
        }
        relative = path.relative_to(engine.output_dir).as_posix()
        key = self._shared.key(self._config_files, {**overrides, "refit": self._refit}, _FILES) if self._shared else ""
        found = self._shared.fetch(key, path) if self._shared else None
        if found is None:
            started = time.monotonic()
            outcome = run_training(self._config_files, overrides)
            if role == "prototype" and self._refit is not None:
                refit_checkpoint(folder / MODEL_FILE, samples, self._refit, overrides.get("device", "cpu"))
            (folder / MODEL_FILE).replace(path)
            seconds = round(time.monotonic() - started, 3)
            found = ModelRecord("", file_sha256(path), seconds, outcome.epochs, outcome.val_loss)
            if self._shared:
                self._shared.keep(key, path, found)
        shutil.rmtree(folder)
        return found._replace(path=relative)

    def _samples(self, engine: RoundEngine) -> pd.DataFrame:
        samples = training_table(engine.ledger, self._index, before_round=engine.round)
        if samples.empty:
            raise ConfigError(f"round {engine.round} has no label to train on; attach InitialFields first")
        return samples

    def _tables(self, engine: RoundEngine, samples: pd.DataFrame, role: str) -> dict[str, str | None]:
        paths: dict[str, str | None] = {"train_samples": str(engine.round_dir / "train.parquet"), "val_samples": None}
        write_fovs(samples, str(paths["train_samples"]))
        if self._val_index is not None and role == "target":  # others have other classes than mAP is taken over
            paths["val_samples"] = str(engine.round_dir / "val.parquet")
            write_fovs(self._val_index, str(paths["val_samples"]))
        return paths

    def _start(self, engine: RoundEngine, role: str) -> str | None:
        if engine.round > 1 and self._warm_start:
            name = MODEL_FILE if role == "target" else AUXILIARY_FILE
            return str(engine.output_dir / "rounds" / f"round_{engine.round - 1:03d}" / name)
        return self._initial_checkpoint if role == "target" else None


def _is_there(path: Path, record: ModelRecord | None) -> bool:
    return record is not None and path.is_file() and file_sha256(path) == record.sha256
