# SPDX-License-Identifier: Apache-2.0
"""Random weights from a seed, without touching PyTorch's global generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draws inside come from ``seed``, and the global generator is afterwards as it was before.

    Args:
        seed: None draws from the global generator.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
