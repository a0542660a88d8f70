# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def test_highest_predicted_loss_first() -> None:
    outputs = PoolOutputs(ids=[4, 5, 6], predicted_losses=np.array([0.5, -1.0, 2.0], dtype=np.float32))
    selection = get_strategy("ll4al").select(outputs, 2, np.random.default_rng(0))
    assert selection.ids.tolist() == [6, 4]
    assert selection.scores.tolist() == [2.0, 0.5]
    assert selection.reasons[1] == "predicted loss 0.5, rank 2 of 3"
