# SPDX-License-Identifier: Apache-2.0
"""Memory that does not suffice for a batch: an error that ends a run, because every further slide would fail too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tral_monai.errors import ConfigError, TralError

# As torch's CPU allocator, cuDNN and cuBLAS, ONNX Runtime, and OpenVINO with TensorRT write it.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "status_alloc_failed",
    "bad_alloc",
    "bad allocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, the machine's or its GPU's.

    Args:
        error: of torch or of another engine, which have no class of their own for it.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


@contextlib.contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turn errors of memory into one that says what to do.

    Args:
        batch_size: tiles per forward pass.

    Raises:
        ConfigError: the block ran out of memory.
    """
    try:
        yield
    except TralError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"the memory does not suffice for batches of {batch_size} tiles ({type(error).__name__}); lower "
            "predict_batch_size, or end other programs that use this memory, and run the same command again"
        ) from error
