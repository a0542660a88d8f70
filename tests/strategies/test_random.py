# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def test_every_sample_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    outputs = PoolOutputs(ids=np.arange(10))
    strategy = get_strategy("random")
    drawn = np.concatenate([strategy.select(outputs, 3, rng).ids for _ in range(2000)])
    # 6,000 draws over 10 ids: 600 each, standard deviation sqrt(2000 * 0.3 * 0.7) = 20.5.
    assert np.abs(np.bincount(drawn, minlength=10) - 600).max() < 5 * 20.5
