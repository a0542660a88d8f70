# SPDX-License-Identifier: Apache-2.0
"""torch itself: as the network is (the reference), or in half precision with weights that are cast once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tral_monai.inference.engines.half_precision import half_precision
from tral_monai.inference.engines.settings import EngineSettings


def build(module: nn.Module, example: torch.Tensor, settings: EngineSettings, *, device: torch.device) -> TorchRunner:
    """See :func:`tral_monai.inference.engines.compile_module.compile_module`."""
    del device
    return TorchRunner(module if settings.precision == "fp32" else half_precision(module, example, settings.precision))


class TorchRunner:
    """Calls a module and gives its outputs as a tuple.

    Args:
        module: gives a tensor, or a tuple or list of them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of a batch."""
        return as_tuple(self.module(batch))


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    """One output or several, as a tuple."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
