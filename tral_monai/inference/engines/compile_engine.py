# SPDX-License-Identifier: Apache-2.0
"""torch.compile: the module as machine code of its own, for any batch size."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tral_monai.inference.engines.half_precision import half_precision
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.engines.torch_engine import TorchRunner


def build(module: nn.Module, example: torch.Tensor, settings: EngineSettings, *, device: torch.device) -> CompileRunner:
    """See :func:`tral_monai.inference.engines.compile_module.compile_module`."""
    if settings.precision == "fp32":
        ready = copy.deepcopy(module).to(memory_format=torch.channels_last)
    else:
        ready = half_precision(module, example, settings.precision)
    return CompileRunner(ready, device=device)


class CompileRunner:
    """A compiled module; the first batch waits for the compiler, half a minute for a large network.

    Args:
        module: a copy that is the runner's own.
        device: where it runs.
    """

    def __init__(self, module: nn.Module, *, device: torch.device) -> None:
        # Frozen weights are laid out once as the CPU's kernels want them.
        options: dict[str, str | int | bool] | None = {"freezing": True} if device.type == "cpu" else None
        self._run = TorchRunner(torch.compile(module.requires_grad_(False), options=options))

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of a batch."""
        if len(batch) == 1:  # torch would compile once more for it
            return tuple(output[:1] for output in self._run(torch.cat([batch, batch])))
        torch._dynamo.mark_dynamic(batch, 0)
        return self._run(batch)
