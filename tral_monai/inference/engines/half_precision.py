# SPDX-License-Identifier: Apache-2.0
"""A copy of a module in bf16 or fp16, whose weights are cast once instead of in every call as by autocast."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import nn

from tral_monai.inference.engines.memory import is_out_of_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CAST = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
# Their weights stay float32. Batch normalisation of maps does too, but takes half-precision inputs as they are.
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.modules.instancenorm._InstanceNorm)

logger = logging.getLogger(__name__)


def half_precision(module: nn.Module, example: torch.Tensor, precision: str) -> nn.Module:
    """Copy a module and cast it.

    Convolutions and dense layers get half-precision weights, in channels_last. Everything else keeps float32:
    parameters and buffers of the network itself, such as means that pixels are normalised with, normalising layers,
    and the last dense layer, whose outputs are logits. Inputs are cast in front of each layer.

    Args:
        module: the module; it stays as it is.
        example: a batch for it. Where the module, cast so, cannot run it (layers that use each other's weights),
            autocast is used instead.
        precision: ``bf16`` or ``fp16``.
    """
    dtype = DTYPES[precision]
    cast = copy.deepcopy(module)
    dense = [part for part in cast.modules() if type(part) is nn.Linear]
    inside: set[nn.Module] = set()
    for part in cast.modules():
        if part in inside:
            continue
        if isinstance(part, nn.MultiheadAttention):  # uses the weights of its parts without calling them
            inside.update(part.modules())
        own = dtype if isinstance(part, _CAST) and part not in dense[-1:] else torch.float32
        if isinstance(part, (*_CAST, *_NORMS)):
            part.to(own)
            part.register_forward_pre_hook(_InputCast(own), with_kwargs=True)
    cast = cast.to(memory_format=torch.channels_last)
    try:
        cast(example[:1])
    except RuntimeError as error:  # what torch says of two dtypes in one operation
        if is_out_of_memory(error):
            raise
        logger.warning("weights cannot be cast to %s (%s): autocast in every call instead", precision, error)
        return _Autocast(copy.deepcopy(module).to(memory_format=torch.channels_last), dtype)
    return cast


class _InputCast:
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return tuple(self._cast(a) for a in args), {key: self._cast(value) for key, value in kwargs.items()}

    def _cast(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


class _Autocast(nn.Module):
    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, batch: torch.Tensor) -> Any:
        with torch.autocast(batch.device.type, self.dtype):
            return self.module(batch)
