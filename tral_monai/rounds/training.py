# SPDX-License-Identifier: Apache-2.0
"""One training inside a round: a bundle's own training workflow, run to its end in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tral_monai.errors import ConfigError

MODEL_FILE = "model.pt"


class TrainingOutcome(NamedTuple):
    """Epochs trained, and the validation loss of the epoch that was kept; None where nothing was validated by loss."""

    epochs: int
    val_loss: float | None


def run_training(config_files: Sequence[str], overrides: Mapping[str, Any]) -> TrainingOutcome:
    """Run a training configuration; it must leave ``model.pt`` in ``overrides["output_dir"]``.

    Args:
        config_files: configurations, of which later ones override earlier ones. ``train#trainer`` is the training
            engine and ``validate#evaluator``, where there is one, the validation engine.
        overrides: values for ids of the configurations; with ``verbose`` false the engines log nothing.

    Raises:
        ConfigError: the training left no model.
    """
    from monai.bundle.workflows import ConfigWorkflow

    with _quiet(not overrides.get("verbose", True)):
        workflow = ConfigWorkflow(list(config_files), workflow_type="train", logging_file=False, **overrides)
        workflow.initialize()
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


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Keep MONAI and Ignite from logging several lines for every epoch of every round."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING if quiet else before)
    try:
        yield
    finally:
        logging.disable(before)
