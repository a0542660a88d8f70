# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from tral_monai.inference.fingerprints import run_key, weights_sha256


def test_weights_count_with_names_and_values() -> None:
    first = torch.nn.BatchNorm1d(3)
    same = torch.nn.BatchNorm1d(3)
    assert weights_sha256(first) == weights_sha256(same)
    with torch.no_grad():
        same.running_mean[1] += 1e-3  # type: ignore[index]
    assert weights_sha256(first) != weights_sha256(same)
    assert weights_sha256(torch.nn.Sequential(first)) != weights_sha256(first)


def test_settings_in_any_order_give_one_key() -> None:
    assert run_key({"a": 1, "b": [1, 2]}) == run_key({"b": [1, 2], "a": 1})
    assert run_key({"a": 1}) != run_key({"a": 2})
