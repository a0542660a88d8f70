# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.inference.early_exit.exit_head import fit_exit_head, fit_temperature


def teacher(n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of very different scales, and a linear model's probabilities of three classes."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, 4, generator=generator) * torch.tensor([1.0, 100.0, 0.01, 1.0]) + 5.0
    features[:, 3] = 7.0
    weight = torch.tensor([[1.0, 0.0, 50.0, 0.0], [0.0, 0.02, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    logits = features @ weight.T
    return features, (logits - logits.mean(dim=0)).softmax(dim=1)


def test_it_imitates_a_linear_model():
    features, probabilities = teacher()
    weight, bias = fit_exit_head(features, probabilities, l2=1e-6)
    assert (weight.dtype, tuple(weight.shape), tuple(bias.shape)) == (torch.float32, (3, 4), (3,))
    imitated = torch.nn.functional.linear(features, weight, bias).softmax(dim=1)
    torch.testing.assert_close(imitated, probabilities, atol=5e-3, rtol=0)


def test_a_feature_that_never_changes_has_no_weight():
    weight, _ = fit_exit_head(*teacher(), l2=0.01)
    assert weight[:, 3].tolist() == [0.0, 0.0, 0.0]


def test_the_same_tiles_give_the_same_head():
    first, second = (fit_exit_head(*teacher(), l2=0.01) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_strong_regularisation_leaves_how_frequent_classes_are():
    features, probabilities = teacher()
    weight, bias = fit_exit_head(features, probabilities, l2=100.0)
    said = torch.nn.functional.linear(features, weight, bias).softmax(dim=1)
    torch.testing.assert_close(said, probabilities.mean(dim=0).expand_as(said), atol=5e-3, rtol=0)


def test_the_temperature_that_logits_were_sharpened_by_is_found():
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    assert fit_temperature(3.0 * logits, logits.softmax(dim=1)) == pytest.approx(3.0, rel=1e-3)


def test_arguments_are_checked():
    features, probabilities = teacher()
    with pytest.raises(ConfigError, match="l2 must be above 0, but is 0"):
        fit_exit_head(features, probabilities, l2=0)
    with pytest.raises(ConfigError, match=r"of at least two tiles, but got \(400, 4\) and \(3, 3\)"):
        fit_exit_head(features, probabilities[:3], l2=0.01)
    with pytest.raises(ConfigError, match=r"of at least two tiles, but got \(1, 4\) and \(1, 3\)"):
        fit_exit_head(features[:1], probabilities[:1], l2=0.01)
