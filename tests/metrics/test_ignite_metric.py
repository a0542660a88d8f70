# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import SimpleInferer
from torch.utils.data import DataLoader

from tral_monai.errors import ConfigError
from tral_monai.metrics.ignite_metric import ConfusionF1

CLASSES = ("Blood", "Stroma", "Background")
# Truth 0: 3 right, 1 taken for 1. Truth 1: 2 right, 2 taken for 0. Macro (6/9 + 4/7) / 2, micro 5/8.
TRUTH = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
LOGITS = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 0, 0, 1, 1]), 3).float() * 4
MACRO = (6 / 9 + 4 / 7) / 2


def _evaluate(metric: ConfusionF1) -> SupervisedEvaluator:
    data = [{"image": logits, "label": label} for logits, label in zip(LOGITS, TRUTH, strict=True)]
    loss = Loss(torch.nn.CrossEntropyLoss(), output_transform=from_engine(["pred", "label"]))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=3),  # type: ignore[arg-type]
        network=torch.nn.Identity(),
        inferer=SimpleInferer(),
        key_val_metric={"f1": metric},
        additional_metrics={"val_loss": loss},
        decollate=False,
    )
    evaluator.run()
    return evaluator


def test_as_key_metric_of_a_monai_evaluator() -> None:
    metric = ConfusionF1(CLASSES)
    evaluator = _evaluate(metric)
    assert evaluator.state.metrics["f1"] == pytest.approx(MACRO)
    assert evaluator.state.best_metric == pytest.approx(MACRO)
    assert metric.confusion.tolist() == [[3, 1, 0], [2, 2, 0], [0, 0, 0]]


def test_ignite_s_own_loss_serves_as_validation_loss() -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, TRUTH).item()
    assert _evaluate(ConfusionF1(CLASSES)).state.metrics["val_loss"] == pytest.approx(expected)


def test_details_go_to_the_engine_s_metrics() -> None:
    metrics = _evaluate(ConfusionF1(CLASSES, average="micro", details=True)).state.metrics
    assert metrics["f1"] == metrics["f1_micro"] == 0.625
    assert metrics["f1_macro"] == pytest.approx(MACRO)
    assert metrics["Stroma_fnr"] == 0.5
    assert "Background_f1" not in metrics


def test_a_second_run_starts_afresh() -> None:
    metric = ConfusionF1(CLASSES)
    evaluator = _evaluate(metric)
    evaluator.run()
    assert metric.confusion.sum() == 8


def test_batches_add_up_and_labels_may_be_columns() -> None:
    metric = ConfusionF1(CLASSES, output_transform=lambda x: x)
    metric.update((LOGITS[:5], TRUTH[:5, None]))
    metric.update((LOGITS[5:], TRUTH[5:, None]))
    assert metric.compute() == pytest.approx(MACRO)


def test_state_survives_a_checkpoint() -> None:
    first, second = (ConfusionF1(CLASSES) for _ in range(2))
    first.update((LOGITS, TRUTH))
    second.load_state_dict(first.state_dict())
    assert second.compute() == pytest.approx(MACRO)


def test_nothing_seen() -> None:
    with pytest.raises(NotComputableError, match="at least one sample"):
        ConfusionF1(CLASSES).compute()


@pytest.mark.parametrize(
    ("classes", "average", "message"),
    [
        ((), "macro", "classes must be distinct names"),
        (("a", "a"), "macro", "classes must be distinct names"),
        (("a",), "weighted", "average must be 'macro' or 'micro', but is 'weighted'"),
    ],
)
def test_bad_arguments(classes: tuple[str, ...], average: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConfusionF1(classes, average=average)


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        (torch.zeros(2, 2), torch.tensor([0, 1]), r"Expected pred \(2, 3\) for 2 labels, but got \(2, 2\)"),
        (torch.zeros(1, 3), torch.tensor([0, 1]), r"Expected pred \(2, 3\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "class indices 0 to 2"),
        (torch.zeros(1, 3), torch.tensor([1.0]), "class indices 0 to 2"),
    ],
)
def test_bad_batches(pred: torch.Tensor, label: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConfusionF1(CLASSES).update((pred, label))
