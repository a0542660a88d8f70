# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import distributed, nn

from tral_monai.errors import ConfigError, TralError
from tral_monai.networks.nuclei.iteration import (
    DetectorEvaluationStep,
    DetectorPrepareBatch,
    DetectorTrainingStep,
    unwrapped,
)
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

Build = Callable[..., OpenSetRCNN]
Field = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]


def loader(field: Field, fields: int = 4) -> torch.utils.data.DataLoader[Any]:
    items: Any = []
    for seed in range(fields):
        image, target = field(seed)
        items.append({"image": image, **target, "id": 10 + seed})
    return torch.utils.data.DataLoader(items, batch_size=2, collate_fn=list)


def trainer(network: nn.Module, data: Any, *, lr: float = 0.01, epochs: int = 2, **options: Any) -> SupervisedTrainer:
    return SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=data, network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr), loss_function=nn.Identity(),
        prepare_batch=DetectorPrepareBatch(), decollate=False,
        **({"iteration_update": DetectorTrainingStep()} | options),
    )  # fmt: skip


def test_a_trainer_takes_a_clipped_step_and_reports_losses(build: Build, field: Field) -> None:
    network = build(loss_prediction=True)
    before = [p.detach().clone() for p in network.parameters()]
    step = DetectorTrainingStep(max_grad_norm=0.001)
    engine = trainer(network, loader(field), lr=1.0, epochs=1, iteration_update=step)
    engine.run()
    output = engine.state.output
    assert output["loss"].item() == pytest.approx(sum(output["losses"].values()), rel=1e-5)
    assert {"loss_prediction", "loss_evidence"} <= set(output["losses"])
    moved = torch.stack([(p - b).norm() for p, b in zip(network.parameters(), before, strict=True)]).norm().item()
    assert 0 < moved <= 2 * 0.001 * 1.001  # two steps of at most that length
    assert network.progress == 0.5  # one of two iterations was done when the last one began


def test_half_precision_on_a_cpu(build: Build, field: Field) -> None:
    engine = trainer(build(), loader(field), epochs=1, amp=True)
    engine.run()
    assert torch.isfinite(engine.state.output["loss"])


def test_a_loss_that_is_not_finite_stops_training(build: Build, field: Field) -> None:
    network = build()
    with torch.no_grad():
        network.rpn.head.cls_logits.bias.fill_(float("nan"))
    network.rpn._proposals = lambda *args: [torch.zeros(0, 4)] * 2
    with pytest.raises(TralError, match="not finite in iteration 1 .*loss_objectness.*lower learning_rate"):
        trainer(network, loader(field)).run()


def test_an_evaluator_gives_detections_and_losses(build: Build, field: Field) -> None:
    network = build()
    engine = SupervisedEvaluator(
        device="cpu", val_data_loader=loader(field, 2), network=network, prepare_batch=DetectorPrepareBatch(),
        iteration_update=DetectorEvaluationStep(want={"evidence"}, with_loss=True), decollate=False,
    )  # fmt: skip
    engine.run()
    output = engine.state.output
    assert len(output["pred"]) == 2
    assert output["pred"].evidence is not None
    assert output["label"][1]["id"].item() == 11
    assert output["loss"].item() > 0


def test_transforms_see_the_whole_batch_and_its_targets(field: Field) -> None:
    def flip(images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]) -> tuple[Any, Any]:
        boxes = [
            t["boxes"][:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor([64, 0, 64, 0]) for t in targets
        ]
        return [i.flip(2) for i in images], [{**t, "boxes": b} for t, b in zip(targets, boxes, strict=True)]

    items = next(iter(loader(field)))
    images, targets = DetectorPrepareBatch([flip])(items, "cpu")
    assert torch.equal(images[0], items[0]["image"].flip(2))
    assert targets[0]["boxes"][0, 0] == 64 - items[0]["boxes"][0, 2]
    with pytest.raises(ConfigError, match="callables on a batch, but one is int"):
        DetectorPrepareBatch([3])  # type: ignore[list-item]


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="max_grad_norm must be 0 .* but is -1"):
        DetectorTrainingStep(max_grad_norm=-1)
    with pytest.raises(ConfigError, match="needs an OpenSetRCNN, but the network is a Linear"):
        unwrapped(nn.Linear(1, 1))


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("options", [{"loss_prediction": True}, {"role": "prototype"}, {"role": "k_plus_one"}])
def test_distributed_data_parallel(build: Build, field: Field, process_group: None, options: dict[str, object]) -> None:
    network = build(**options)
    plain = build(**options)
    parallel = nn.parallel.DistributedDataParallel(network)
    for each in (parallel, plain):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            engine = trainer(each, loader(field), epochs=1)
            engine.run()
    pairs = zip(network.state_dict().items(), plain.state_dict().values(), strict=True)
    assert [name for (name, a), b in pairs if not torch.allclose(a, b, atol=1e-5)] == []
