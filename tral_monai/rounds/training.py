# SPDX-License-Identifier: Apache-2.0
"""One training inside a round: a bundle's own training workflow, run to its end in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tral_monai.errors import ConfigError

MODEL_FILE = "model.pt"


class TrainingOutcome(NamedTuple):
    """Epochs trained, and the validation loss of the epoch that was kept; None where nothing was validated by loss."""

    epochs: int
    val_loss: float | None


OnEpoch = Callable[[int, int, Mapping[str, float]], None]
"""Called with (epochs done, epochs at most, newest validation metrics by name)."""


def run_training(
    config_files: Sequence[str], overrides: Mapping[str, Any], *, on_epoch: OnEpoch | None = None
) -> TrainingOutcome:
    """Run a training configuration; it must leave ``model.pt`` in ``overrides["output_dir"]``.

    Args:
        config_files: configurations, of which later ones override earlier ones. ``train#trainer`` is the training
            engine and ``validate#evaluator``, where there is one, the validation engine.
        overrides: values for ids of the configurations; with ``verbose`` false the engines log nothing.
        on_epoch: called after every epoch, in place of the engines' own several lines.

    Raises:
        ConfigError: the training left no model.
    """
    from monai.bundle.workflows import ConfigWorkflow

    values = {**overrides, "verbose": False} if on_epoch is not None else overrides
    with without_engines() if on_epoch is not None else _quiet(not overrides.get("verbose", True)):
        workflow = ConfigWorkflow(list(config_files), workflow_type="train", logging_file=False, **values)
        workflow.initialize()
        if on_epoch is not None:
            _tell_epochs(workflow.parser, on_epoch)
        workflow.run()
        workflow.finalize()
    folder = Path(str(overrides["output_dir"]))
    if not (folder / MODEL_FILE).is_file():
        raise ConfigError(f"training left no {MODEL_FILE} in {folder}; its configuration must save the best epoch")
    parser = workflow.parser
    trainer = parser.get_parsed_content("train#trainer")
    evaluator = parser.get_parsed_content("validate#evaluator") if "validate#evaluator" in parser else None
    if evaluator is None or evaluator.state.key_metric_name != "val_loss":
        return TrainingOutcome(int(trainer.state.epoch), None)
    return TrainingOutcome(int(trainer.state.epoch), float(evaluator.state.best_metric))


def _tell_epochs(parser: Any, on_epoch: OnEpoch) -> None:
    from ignite.engine import Events

    trainer = parser.get_parsed_content("train#trainer")
    evaluator = parser.get_parsed_content("validate#evaluator") if "validate#evaluator" in parser else None

    def tell(engine: Any) -> None:
        metrics = evaluator.state.metrics if evaluator is not None else {}
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
        on_epoch(int(engine.state.epoch), int(engine.state.max_epochs), numbers)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell)


@contextmanager
def without_engines() -> Iterator[None]:
    """Keep Ignite's and MONAI's engines from logging while everything else may."""
    levels = {"ignite": logging.WARNING, "monai": logging.WARNING, "monai.bundle.workflows": logging.ERROR}
    loggers = [logging.getLogger(name) for name in levels]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(levels[one.name])
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Keep MONAI and Ignite from logging several lines for every epoch of every round."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING if quiet else before)
    try:
        yield
    finally:
        logging.disable(before)
