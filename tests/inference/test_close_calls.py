# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.inference.close_calls import close_calls

NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "rules", "close"),
    [
        ([0.60, 0.30, 0.10], {}, False),
        ([0.45, 0.35, 0.20], {}, True),
        ([NAN, NAN, NAN], {}, True),
        ([0.68, 0.20, 0.12], {"undefined_below": 0.6}, True),
        ([0.52, 0.28, 0.20], {"undefined_below": 0.6}, True),
        ([0.75, 0.15, 0.10], {"undefined_below": 0.6}, False),
        ([0.95, 0.04, 0.01], {"damaged_at_least": 0.9, "damaged_output": 0}, True),
        ([0.95, 0.04, 0.01], {"damaged_at_least": 0.9, "damaged_output": 1}, False),
        ([0.95, 0.04, 0.01], {"damaged_at_least": 0.9}, False),
        ([0.60, 0.22, 0.18], {"damaged_at_least": 0.9, "damaged_output": 0}, True),  # 0.22 or 0.18 is shown
        ([0.60, 0.35, 0.05], {"damaged_at_least": 0.9, "damaged_output": 0}, False),
    ],
)
def test_close_to_another_class_or_to_a_threshold(row, rules, close):
    assert close_calls(torch.tensor([row]), 0.2, **rules).tolist() == [close]


def test_one_or_two_classes():
    assert close_calls(torch.tensor([[0.55, 0.45], [0.9, 0.1]]), 0.2).tolist() == [True, False]
    assert close_calls(torch.ones(2, 1), 0.2).tolist() == [True, True]
