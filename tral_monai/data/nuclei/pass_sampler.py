# SPDX-License-Identifier: Apache-2.0
"""The order of a training whose epoch is a number of updates: all samples, then all again, each pass anew."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from tral_monai.errors import ConfigError


class PassSampler(Sampler[tuple[int, int]]):
    """Gives (position, pass): every sample once in random order, then every sample again, until there are enough.

    A batch is never short, however few samples there are. The number of the pass lets a dataset draw another
    augmentation for a sample that comes again within an epoch.

    Args:
        data_source: The dataset; only its length counts.
        num_samples: How many samples an epoch has.
        generator: Of the order.

    Raises:
        ConfigError: There is no sample, or none is asked for.
    """

    def __init__(self, data_source: Sized, num_samples: int, generator: torch.Generator) -> None:
        if not len(data_source) or num_samples < 1:
            raise ConfigError(f"an epoch of {num_samples} samples cannot be drawn from {len(data_source)}; give some")
        self._samples, self._length, self._generator = len(data_source), int(num_samples), generator

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._length, self._samples):
            order = torch.randperm(self._samples, generator=self._generator)[: self._length - start]
            for position in order.tolist():
                yield position, start // self._samples
