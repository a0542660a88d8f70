# SPDX-License-Identifier: Apache-2.0
"""torch.compile: the module as machine code of its own, for any batch size."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tral_monai.inference.engines.half_precision import half_precision
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.engines.torch_engine import as_tuple


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
        module.requires_grad_(False)
        if device.type == "cpu":  # frozen weights are laid out once as the CPU's kernels want them
            self._module = torch.compile(module, options={"freezing": True})
        else:
            self._module = torch.compile(module)

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of a batch."""
        count = len(batch)
        # The compiled code is guarded by the mode that it was made in.
        with torch.inference_mode(False), torch.no_grad():
            if count == 1:  # torch would compile once more for it
                batch = torch.cat([batch, batch])
            elif batch.is_inference():
                batch = batch.clone()
            torch._dynamo.mark_dynamic(batch, 0)
            return tuple(output[:count] for output in as_tuple(self._module(batch)))
