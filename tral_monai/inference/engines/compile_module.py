# SPDX-License-Identifier: Apache-2.0
"""One way into every engine: a module, an example of its input, and settings give something to call."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from tral_monai.errors import ConfigError
from tral_monai.inference.engines.available import require_engine
from tral_monai.inference.engines.settings import EngineSettings

Runner = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
"""A batch in, a tuple of outputs back; what an engine's ``build`` returns."""

_BUILT_IN = {
    "torch": "torch_engine",
    "compile": "compile_engine",
    "onnxruntime": "onnxruntime_engine",
    "openvino": "openvino_engine",
    "tensorrt": "tensorrt_engine",
}


def compile_module(
    module: nn.Module, example: torch.Tensor, settings: EngineSettings, *, device: torch.device | str = "cpu"
) -> CompiledModule:
    """Make a module ready to run in an engine. The module itself stays as it is, except that torch in fp32 uses it.

    Args:
        module: maps a (B, ...) batch to a tensor or a tuple of tensors with B rows each, for any B; in evaluation mode.
        example: a batch of the kind that will come: its dtype, and its shape but for B. Real tiles are best, because
            an engine may tune itself with them.
        settings: the engine.
        device: where batches come from and outputs go to; the module's weights must be there.

    Returns:
        Something to call with a batch; it gives a tuple of float32 tensors on ``device``, also for one output.

    Raises:
        ConfigError: the engine does not take this precision, device or module; the message says which do.
        MissingExtraError: a package of the engine is not installed.
    """
    device = torch.device(device)
    if example.dim() < 2 or not len(example):
        raise ConfigError(f"an engine needs an example batch (B, ...) of at least one item, not {tuple(example.shape)}")
    if any(part.training for part in module.modules()):
        raise ConfigError("an engine runs networks in evaluation mode, but this one is in training mode; call eval()")
    require_engine(settings.name, settings.precision, device)
    builder = importlib.import_module(f"tral_monai.inference.engines.{_BUILT_IN[settings.name]}")
    # Exporters and compilers do not take tensors of the inference mode.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        run: Runner = builder.build(module, example.to(device).clone(), settings, device=device)
    return CompiledModule(run, example, settings, device=device)


class CompiledModule:
    """A module in an engine.

    Args:
        run: what the engine made.
        example: see :func:`compile_module`.
        settings: see there.
        device: see there.

    Attributes:
        settings: the engine and its precision.
    """

    def __init__(self, run: Runner, example: torch.Tensor, settings: EngineSettings, *, device: torch.device) -> None:
        self._run = run
        self._shape, self._dtype = tuple(example.shape[1:]), example.dtype
        self.settings = settings
        self.device = device
        self._own_threads = settings.num_threads if settings.name in ("torch", "compile") else None

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run a batch.

        Args:
            batch: (B, ...) of the example's dtype and shape; B may be anything, also 0.

        Returns:
            The outputs, float32.

        Raises:
            ConfigError: a batch of another dtype or shape.
        """
        if tuple(batch.shape[1:]) != self._shape or batch.dtype != self._dtype:
            raise ConfigError(
                f"{self.settings.title} was made for batches of {self._dtype} {('B', *self._shape)}, but got "
                f"{batch.dtype} {tuple(batch.shape)}; compile the module for this shape"
            )
        count = len(batch)
        if not count:  # engines differ in what they do with nothing
            batch = batch.new_zeros((1, *self._shape))
        with _torch_threads(self._own_threads), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            outputs = self._run(batch.to(self.device))
            return tuple(output[:count].to(self.device, torch.float32) for output in outputs)


@contextlib.contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
