# SPDX-License-Identifier: Apache-2.0
"""One iteration of training and evaluation of a detector, for MONAI's engines.

``SupervisedTrainer(iteration_update=DetectorTrainingStep(), ...)`` and
``SupervisedEvaluator(iteration_update=DetectorEvaluationStep(), ...)``, both with ``decollate=False`` and
``prepare_batch=DetectorPrepareBatch()``. The trainer's ``loss_function`` and ``inferer`` are not used: the losses of a
detector are made where its samples are, inside the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from monai.engines.evaluator import SupervisedEvaluator
from monai.engines.trainer import SupervisedTrainer
from monai.engines.utils import IterationEvents, PrepareBatch
from monai.utils.enums import CommonKeys as Keys
from torch import nn

from tral_monai.errors import ConfigError, TralError
from tral_monai.networks.nuclei.detect import detect
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN

Target = dict[str, torch.Tensor]
Transform = Callable[[list[torch.Tensor], list[Target]], tuple[list[torch.Tensor], list[Target]]]
"""Changes the images and targets of a batch, such as an augmentation; returns new lists."""


class DetectorPrepareBatch(PrepareBatch):
    """Moves a batch of :class:`~tral_monai.data.nuclei.dataset.NucleusDataset` to the device, then augments it.

    Args:
        transforms: Applied in order to (images, targets) of the batch, on the device.

    Raises:
        ConfigError: A transform cannot be called.
    """

    def __init__(self, transforms: Sequence[Transform] = ()) -> None:
        for transform in transforms:
            if not callable(transform):
                raise ConfigError(f"transforms must be callables on a batch, but one is {type(transform).__name__}")
        self.transforms = tuple(transforms)

    def __call__(
        self,
        batchdata: Any,
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[list[torch.Tensor], list[Target]]:
        """Prepares one batch.

        Args:
            batchdata: A list of items with ``image`` (3, h, w), ``boxes`` (k, 4), ``labels`` (k,) and ``id``.
            device: Where the network is.
            non_blocking: Of ``Tensor.to``.
            kwargs: Further arguments of ``Tensor.to``.

        Returns:
            Images, and targets with ``boxes``, ``labels`` and ``id``.
        """
        images = [item["image"].to(device, non_blocking=non_blocking, **kwargs) for item in batchdata]
        targets = [
            {
                "boxes": item["boxes"].to(device, non_blocking=non_blocking, **kwargs),
                "labels": item["labels"].to(device, non_blocking=non_blocking, **kwargs),
                "id": torch.as_tensor(item.get("id", row)),
            }
            for row, item in enumerate(batchdata)
        ]
        for transform in self.transforms:
            images, targets = transform(images, targets)
        return images, targets


class DetectorTrainingStep:
    """``iteration_update`` of a trainer: forward, sum of the losses, backward, clipped step.

    Leaves in ``engine.state.output`` the image list, targets, ``loss`` (0-d tensor, detached) and ``losses`` (name to
    float). Sets the detector's ``progress``, which LL4AL's module is detached by. Works on a network in
    ``DistributedDataParallel``, and with ``amp=True`` on CUDA (with the trainer's gradient scaler) and CPU (bfloat16).

    Args:
        max_grad_norm: Gradients are scaled down to this norm; 0 leaves them.

    Raises:
        ConfigError: ``max_grad_norm`` is below 0.
    """

    def __init__(self, *, max_grad_norm: float = 10.0) -> None:
        if max_grad_norm < 0:
            raise ConfigError(f"max_grad_norm must be 0 (off) or above, but is {max_grad_norm!r}")
        self.max_grad_norm = float(max_grad_norm)

    def __call__(self, engine: SupervisedTrainer, batchdata: Any) -> dict[str, Any]:
        """Runs one iteration.

        Args:
            engine: The trainer.
            batchdata: What its data loader gave.

        Raises:
            TralError: The loss is not finite.
        """
        network, optimizer, device = engine.network, engine.optimizer, torch.device(engine.state.device)
        images, targets = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        network.train()
        detector = unwrapped(network)
        total = (engine.state.max_epochs or 1) * (engine.state.epoch_length or 1)
        detector.progress = min((engine.state.iteration - 1) / total, 1.0)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, enabled=bool(engine.amp), **_autocast_options(engine, device)):
            losses: dict[str, torch.Tensor] = network(images, targets)
            loss = torch.stack([value.float() for value in losses.values()]).sum()
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        found = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(sum(found.values())):
            raise TralError(
                f"the loss is not finite in iteration {engine.state.iteration} ({found}); lower learning_rate, or "
                "switch amp off"
            )
        scaler = engine.scaler if device.type == "cuda" else None
        self._step(network, optimizer, loss, scaler, engine)
        engine.state.output = {Keys.IMAGE: images, Keys.LABEL: targets, Keys.LOSS: loss.detach(), "losses": found}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = engine.state.output
        return output

    def _step(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, scaler: Any, engine: Any
    ) -> None:
        (scaler.scale(loss) if scaler is not None else loss).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if self.max_grad_norm:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), self.max_grad_norm)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()


class DetectorEvaluationStep:
    """``iteration_update`` of an evaluator: detections of the batch, and the losses if asked for.

    Leaves in ``engine.state.output`` the image list, ``label`` (targets), ``pred``
    (:class:`~tral_monai.data.nuclei.detections.Detections` of the batch) and, if asked for, ``loss``.

    Args:
        want: See :func:`tral_monai.networks.nuclei.detect.detect`.
        with_loss: Also compute the summed loss, with the sampling of training; a forward pass more.
    """

    def __init__(self, *, want: Collection[str] = (), with_loss: bool = False) -> None:
        self.want, self.with_loss = frozenset(want), bool(with_loss)

    def __call__(self, engine: SupervisedEvaluator, batchdata: Any) -> dict[str, Any]:
        """Runs one iteration.

        Args:
            engine: The evaluator.
            batchdata: What its data loader gave.
        """
        images, targets = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        detector = unwrapped(engine.network)
        found = detect(detector, images, want=self.want, batch_size=max(len(images), 1), autocast=bool(engine.amp))
        engine.state.output = {Keys.IMAGE: images, Keys.LABEL: targets, Keys.PRED: found.detections}
        if found.image_features is not None:
            engine.state.output["image_features"] = found.image_features
        if found.predicted_losses is not None:
            engine.state.output["predicted_losses"] = found.predicted_losses
        if self.with_loss:
            detector.eval()
            with torch.no_grad():
                losses = detector(images, targets)
            assert isinstance(losses, dict)
            engine.state.output[Keys.LOSS] = torch.stack([value.float() for value in losses.values()]).sum()
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = engine.state.output
        return output


def unwrapped(network: nn.Module) -> OpenSetRCNN:
    """The detector itself, without ``DistributedDataParallel`` around it.

    Raises:
        ConfigError: It is no detector.
    """
    inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    if not isinstance(inner, OpenSetRCNN):
        raise ConfigError(f"this iteration needs an OpenSetRCNN, but the network is a {type(inner).__name__}")
    return inner


def _autocast_options(engine: SupervisedTrainer, device: torch.device) -> dict[str, Any]:
    return dict(engine.amp_kwargs) if device.type == "cuda" else {}
