# SPDX-License-Identifier: Apache-2.0
"""F1 inside an Ignite or MONAI engine. For a validation loss use `ignite.metrics.Loss`, which does the same already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from monai.handlers.utils import from_engine

from tral_monai.errors import ConfigError
from tral_monai.metrics.classification import class_scores, classification_metrics


class ConfusionF1(Metric):
    """F1 from a confusion matrix summed over batches and processes.

    As `key_val_metric` of `monai.engines.SupervisedEvaluator(decollate=False)` it gives one number; with `details`,
    `engine.state.metrics` also holds all the others. With its default `output_transform` it reads the
    engine's output entries `pred`, logits or probabilities (B, C), and `label`, class indices (B,) or (B, 1).

    Args:
        classes: C names in the network's order.
        average: "macro" or "micro": what `compute` returns. Undefined classes are left out of the mean, see
            `ClassScores`.
        details: Also write `<class>_f1`, `<class>_fnr`, `f1_micro` and `f1_macro` to `engine.state.metrics`.
        output_transform: Engine output -> (pred, label).
        device: Where the matrix is summed.

    Attributes:
        confusion: (C, C) int64, rows truth, of all processes; there after `compute`.

    Raises:
        ConfigError: There is no class, a name repeats, or `average` is unknown.
    """

    _state_dict_all_req_keys = ("_confusion",)

    def __init__(
        self,
        classes: Sequence[str],
        *,
        average: str = "macro",
        details: bool = False,
        output_transform: Callable[[Any], Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if not classes or len(set(classes)) != len(classes):
            raise ConfigError(f"classes must be distinct names, at least one, but are {list(classes)}.")
        if average not in ("macro", "micro"):
            raise ConfigError(f"average must be 'macro' or 'micro', but is {average!r}.")
        self.classes = tuple(classes)
        self.average = average
        self.details = details
        super().__init__(output_transform=output_transform or from_engine(["pred", "label"]), device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all batches."""
        self._confusion = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add a batch.

        Raises:
            ConfigError: Shapes do not fit, or a label is no class index.
        """
        pred, label = output
        c = len(self.classes)
        label = label.reshape(-1).to(self._device)
        if pred.ndim != 2 or pred.shape != (len(label), c):
            raise ConfigError(
                f"Expected pred ({len(label)}, {c}) for {len(label)} labels, but got {tuple(pred.shape)}."
            )
        if len(label) and (label.is_floating_point() or int(label.min()) < 0 or int(label.max()) >= c):
            raise ConfigError(
                f"label must hold class indices 0 to {c - 1}, but is {label.tolist()[:8]} ({label.dtype})."
            )
        index = label.to(torch.int64) * c + pred.detach().argmax(dim=1).to(self._device)
        self._confusion += torch.bincount(index, minlength=c * c).reshape(c, c)

    @sync_all_reduce("_confusion")
    def compute(self) -> float:
        """Macro or micro F1 over all batches.

        Raises:
            NotComputableError: No sample has come.
        """
        if int(self._confusion.sum()) == 0:
            raise NotComputableError("ConfusionF1 needs at least one sample before it can be computed.")
        # Kept here, where the counts of all processes are summed; afterwards they are those of this process again.
        self.confusion = self._confusion.cpu().numpy()
        scores = class_scores(self.confusion)
        return scores.f1_macro if self.average == "macro" else scores.f1_micro

    def completed(self, engine: Any, name: str) -> None:
        """Write the result, and the details, to `engine.state.metrics` at the end of an epoch."""
        super().completed(engine, name)
        if self.details:
            engine.state.metrics.update(classification_metrics(self.confusion, self.classes))
