# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from tral_monai.networks.nuclei.loss_prediction import LossPrediction


def test_one_branch_per_level_and_one_number_per_image() -> None:
    module = LossPrediction(2, 2, width=1)
    with torch.no_grad():
        for branch, weight in zip(module.branches, ([1.0, 0.0], [0.0, -1.0]), strict=True):
            branch.weight.copy_(torch.tensor([weight]))
            branch.bias.zero_()
        module.output.weight.copy_(torch.tensor([[2.0, 3.0]]))
        module.output.bias.fill_(0.5)
    pooled = torch.tensor([[[1.0, 9.0], [9.0, 4.0]], [[2.0, 9.0], [9.0, -4.0]]])
    # The second level's branch gives ReLU(-4) = 0, then ReLU(4) = 4.
    assert module(pooled).tolist() == [2 * 1 + 3 * 0 + 0.5, 2 * 2 + 3 * 4 + 0.5]
