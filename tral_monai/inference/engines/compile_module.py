# SPDX-License-Identifier: Apache-2.0
"""One way into every engine: a module, an example of its input, and settings give something to call."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator

import torch
from torch import nn

from tral_monai.errors import ConfigError, TralError
from tral_monai.inference.engines.available import require_engine
from tral_monai.inference.engines.memory import memory_advice
from tral_monai.inference.engines.settings import EngineSettings

_log = logging.getLogger(__name__)

Runner = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
"""A batch in, a tuple of outputs back; what an engine's ``build`` returns."""

_BUILT_IN = {
    "torch": "torch_engine",
    "compile": "compile_engine",
    "onnxruntime": "onnxruntime_engine",
    "openvino": "openvino_engine",
    "tensorrt": "tensorrt_engine",
}
_CACHED = ("onnxruntime", "openvino", "tensorrt")


def compile_module(
    module: nn.Module,
    example: torch.Tensor,
    settings: EngineSettings,
    *,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> CompiledModule:
    """Make a module ready to run in an engine. The module itself stays as it is, except that torch in fp32 uses it.

    Every other engine then runs the example once: what cannot run fails here, before the first slide, and not with
    each of them.

    Args:
        module: maps a (B, ...) batch to a tensor or a tuple of tensors with B rows each, for any B; in evaluation mode.
        example: a batch of the kind that will come: its dtype, and its shape but for B. Real tiles are best, because
            an engine may tune itself with them.
        settings: the engine.
        device: where batches come from and outputs go to; the module's weights must be there.
        batch_size: size of the largest batch that will come. A smaller example is repeated up to it, because engines
            tune themselves to its size, and TensorRT's plans take no more. None: the example's own.

    Returns:
        Something to call with a batch; it gives a tuple of float32 tensors on ``device``, also for one output.

    Raises:
        ConfigError: the engine does not take this precision, device or module, or its memory does not suffice for
            the example; the message says what to do.
        MissingExtraError: a package of the engine is not installed.
    """
    device = torch.device(device)
    if example.dim() < 2 or not len(example):
        raise ConfigError(f"an engine needs an example batch (B, ...) of at least one item, not {tuple(example.shape)}")
    if any(part.training for part in module.modules()):
        raise ConfigError("an engine runs networks in evaluation mode, but this one is in training mode; call eval()")
    require_engine(settings.name, settings.precision, device)
    builder = importlib.import_module(f"tral_monai.inference.engines.{_BUILT_IN[settings.name]}")
    example = _repeated(example, batch_size or len(example)).to(device)
    if not settings.is_reference:
        _log.info("preparing engine %s, which may take a minute or more", settings.title)
    try:
        with memory_advice(len(example)):
            # Exporters and compilers do not take tensors of the inference mode.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
                run: Runner = builder.build(module, example.clone(), settings, device=device)
            compiled = CompiledModule(run, example, settings, device=device)
            if not settings.is_reference:
                compiled(example)
    except TralError:
        raise
    except Exception as error:  # of an exporter, a compiler or a runtime, which have errors of many kinds
        if settings.is_reference:
            raise
        raise ConfigError(_cannot_run(settings, error)) from error
    return compiled


def _repeated(example: torch.Tensor, count: int) -> torch.Tensor:
    """The items again and again up to ``count`` of them; all where there are as many already."""
    if len(example) >= count:
        return example
    return torch.cat([example] * -(-count // len(example)))[:count]  # keeps the memory format


def _cannot_run(settings: EngineSettings, error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    cause = type(error).__name__ + (f": {first}" if first else "")
    remedy = "engine torch" if settings.name != "torch" else "precision fp32"
    if settings.cache_dir is not None and settings.name in _CACHED:
        remedy += ", or remove the files of the engine's cache if they may be damaged"
    return f"engine {settings.name} cannot run this network in {settings.precision} ({cause}); use {remedy}"


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
            ConfigError: a batch of another dtype or shape, or more than the memory holds.
        """
        if tuple(batch.shape[1:]) != self._shape or batch.dtype != self._dtype:
            raise ConfigError(
                f"{self.settings.title} was made for batches of {self._dtype} {('B', *self._shape)}, but got "
                f"{batch.dtype} {tuple(batch.shape)}; compile the module for this shape"
            )
        count = len(batch)
        if not count:  # engines differ in what they do with nothing
            batch = batch.new_zeros((1, *self._shape))
        with (
            memory_advice(len(batch)),
            torch_threads(self._own_threads),
            torch.no_grad(),
            torch.autocast(self.device.type, enabled=False),
        ):
            outputs = self._run(batch.to(self.device))
            return tuple(output[:count].to(self.device, torch.float32) for output in outputs)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use some number of threads for a while.

    Args:
        count: the number; None changes nothing.
    """
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
