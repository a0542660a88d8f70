# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tral_monai.errors import ConfigError
from tral_monai.losses.prototype import prototype_loss
from tral_monai.networks.nuclei.open_set_rcnn import OpenSetRCNN
from tral_monai.networks.nuclei.prototypes import Prototypes, fit_points, refit_prototypes

IMAGES = torch.zeros(4, dtype=torch.int64)


def test_prototypes_start_at_the_means_of_the_first_nuclei_of_each_side() -> None:
    bank = Prototypes(2, projection=None, margin=10.0).train()
    features = torch.tensor([[0.0, 0.0], [2.0, 0.0], [99.0, 99.0], [99.0, 99.0]])
    term = bank.losses(features, torch.tensor([1, 1, 0, 0]), IMAGES, 1)
    assert bank.points.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert bank.ready.tolist() == [True, False]
    assert term.batch().item() == 1.0  # both are 1 away; the unknown prototype does not count yet
    assert bank.distances(features)[0].tolist() == [1.0, float("inf")]
    bank.losses(features, torch.tensor([2, 0, 0, 0]), IMAGES, 1)
    assert bank.points.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert bank.ready.tolist() == [True, True]
    bank.losses(features + 5, torch.tensor([1, 2, 0, 0]), IMAGES, 1)
    assert bank.points.tolist() == [[1.0, 0.0], [0.0, 0.0]]  # only gradients move them from now on


def test_the_loss_is_that_of_foreground_rois_and_reaches_prototypes_and_projection() -> None:
    bank = Prototypes(3, projection=2, margin=10.0)
    with torch.no_grad():
        bank.points.copy_(torch.tensor([[0.0, 0.0], [6.0, 8.0]]))
        bank.ready.fill_(True)
    features = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    term = bank.losses(features, torch.tensor([1, 0, 2, 0]), torch.tensor([0, 0, 1, 1]), 2)
    expected = prototype_loss(bank.embed(features[[0, 2]]), torch.tensor([0, 1]), bank.points)
    assert torch.allclose(term.per_image(), expected)
    term.batch().backward()
    assert bank.points.grad is not None
    assert bank.points.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in bank.project.parameters())


def test_background_alone_gives_no_loss() -> None:
    bank = Prototypes(2, projection=None, margin=10.0)
    term = bank.losses(torch.ones(2, 2), torch.tensor([0, 0]), IMAGES[:2], 1)
    term.batch().backward()
    assert term.batch().item() == 0.0
    assert bank.points.grad is not None
    assert not bank.ready.any()


def test_points_are_class_means_or_below_them_in_the_papers_objective() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = (
        torch.randn(60, 3, generator=generator) + torch.tensor([[4.0, 0.0, 0.0]]) * (torch.arange(60) < 20)[:, None]
    )
    embeddings[0] = torch.tensor([60.0, 0.0, 0.0])  # an outlier draws the mean, less so the minimiser
    sides = (torch.arange(60) >= 20).long()
    means, ready = fit_points(embeddings, sides, margin=10.0, steps=0)
    assert ready.tolist() == [True, True]
    assert torch.allclose(means[0], embeddings[:20].mean(dim=0))
    assert torch.allclose(means[1], embeddings[20:].mean(dim=0))
    points, _ = fit_points(embeddings, sides, margin=10.0, steps=200)
    before, after = (prototype_loss(embeddings, sides, p).mean().item() for p in (means, points))
    assert after < 0.95 * before


def test_a_side_without_nuclei_has_no_prototype() -> None:
    points, ready = fit_points(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), margin=10.0, steps=5)
    assert ready.tolist() == [True, False]
    assert points[1].tolist() == [0.0, 0.0]


def test_refit_reads_every_answered_nucleus(build: Callable[..., OpenSetRCNN], field: Callable[..., tuple]) -> None:
    network = build(role="prototype")
    fields = [field(seed, labels=(1, 2, 1)) for seed in range(3)]
    fields[0][1]["labels"][0] = -1  # the annotator ignored one
    result = refit_prototypes(network, [(i, t["boxes"], t["labels"]) for i, t in fields], method="mean", batch_size=2)
    assert (result["known"], result["unknown"]) == (5, 3)
    bank = network.prototypes
    assert bank is not None
    assert bank.ready.all()
    with torch.no_grad():
        network.eval()
        embeddings = bank.embed(network.features_at([i for i, _ in fields], [t["boxes"] for _, t in fields]))
        labels = torch.cat([t["labels"] for _, t in fields])
    assert torch.allclose(bank.points[0], embeddings[labels == 1].mean(dim=0), atol=1e-5)
    assert torch.allclose(bank.points[1], embeddings[labels == 2].mean(dim=0), atol=1e-5)
    again = refit_prototypes(network, [(i, t["boxes"], t["labels"]) for i, t in fields])
    assert again["loss"] <= result["loss"]
    assert bank.points.requires_grad


def test_refit_needs_prototypes_and_nuclei(build: Callable[..., OpenSetRCNN]) -> None:
    with pytest.raises(
        ConfigError, match="only a detector of role 'prototype' has prototypes, but its role is 'target'"
    ):
        refit_prototypes(build(), [])
    network = build(role="prototype")
    with pytest.raises(ConfigError, match="there are none in these fields"):
        refit_prototypes(network, [])
    with pytest.raises(ConfigError, match="'minimise' or 'mean', but is 'median'"):
        refit_prototypes(network, [], method="median")  # type: ignore[arg-type]
