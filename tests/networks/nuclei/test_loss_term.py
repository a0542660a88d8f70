# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from tral_monai.networks.nuclei.loss_term import LossTerm


def test_means_over_the_batch_and_over_each_image() -> None:
    values, images = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 2])
    term = LossTerm.of(values, images, torch.tensor([2, 0, 1]))
    assert term.per_image().tolist() == [2.0, 0.0, 8.0]
    assert term.batch().item() == 4.0  # 12 over 3 samples, not the mean of the images' means


def test_no_sample_at_all_is_zero() -> None:
    term = LossTerm.of(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]))
    assert term.batch().item() == 0.0
    assert term.per_image().tolist() == [0.0, 0.0]
