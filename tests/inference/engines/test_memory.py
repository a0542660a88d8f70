# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from tral_monai.errors import CheckpointError, ConfigError
from tral_monai.inference.engines.compile_module import compile_module
from tral_monai.inference.engines.memory import is_out_of_memory, memory_advice
from tral_monai.inference.engines.settings import EngineSettings

ADVICE = r"does not suffice for batches of 7 tiles \((RuntimeError|OutOfMemoryError)\); lower predict_batch_size"


def test_what_torchs_allocator_raises_becomes_advice() -> None:
    with pytest.raises(ConfigError, match=ADVICE) as caught, memory_advice(7):
        torch.empty(1 << 50)
    assert "can't allocate memory" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (MemoryError(), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[ONNXRuntimeError] : Failed to allocate memory for requested buffer of size 12"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (OSError("Cannot allocate memory"), False),
    ],
)
def test_how_engines_say_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="other"), memory_advice(7):
        raise ValueError("other")
    with pytest.raises(CheckpointError, match="out of memory"), memory_advice(7):
        raise CheckpointError("out of memory")


class _Hungry(nn.Module):
    """Wants a pebibyte for batches of more than four."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch if len(batch) <= 4 else torch.empty(len(batch), 1 << 48)


def test_a_batch_that_is_too_large_is_told_before_the_first_slide_and_later() -> None:
    bf16 = EngineSettings(precision="bf16")
    with pytest.raises(ConfigError, match=ADVICE):
        compile_module(_Hungry().eval(), torch.ones(2, 1), bf16, batch_size=7)
    run = compile_module(_Hungry().eval(), torch.ones(2, 1), bf16, batch_size=4)
    with pytest.raises(ConfigError, match=ADVICE):
        run(torch.ones(7, 1))
