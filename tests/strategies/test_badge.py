# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.strategies.badge import Badge
from tral_monai.strategies.base import PoolOutputs


def _embeddings(p: np.ndarray, f: np.ndarray) -> np.ndarray:
    a = p.copy()
    a[np.arange(len(p)), p.argmax(axis=1)] -= 1
    return np.einsum("nc,nd->ncd", a, f).reshape(len(p), -1)


def test_score_is_the_gradient_length_by_hand() -> None:
    # p = (0.7, 0.3): a = (-0.3, 0.3), |a| = 0.4243; f = (3, 4), |f| = 5.
    outputs = PoolOutputs(ids=[1], probabilities=[[0.7, 0.3]], features=[[3.0, 4.0]])
    assert Badge().score(outputs) == pytest.approx([0.3 * 2**0.5 * 5])


def test_as_k_means_pp_on_embeddings_that_were_built() -> None:
    rng = np.random.default_rng(0)
    p, f = rng.dirichlet(np.ones(4), size=30), rng.normal(size=(30, 6))
    chosen = (
        Badge().select(PoolOutputs(ids=np.arange(30), probabilities=p, features=f), 8, np.random.default_rng(5)).ids
    )

    g, draw = _embeddings(p, f), np.random.default_rng(5)
    expected = [int(np.argmax((g**2).sum(axis=1)))]
    while len(expected) < 8:
        nearest = ((g[:, None] - g[expected][None]) ** 2).sum(axis=2).min(axis=1)
        expected.append(int(draw.choice(30, p=nearest / nearest.sum())))
    assert chosen.tolist() == expected


def test_identical_gradients_are_drawn_last() -> None:
    # Rows 0 to 8 share one gradient, row 9 has its own: the second pick must leave the crowd.
    p = np.array([[0.6, 0.4]] * 9 + [[0.4, 0.6]])
    outputs = PoolOutputs(ids=np.arange(10), probabilities=p, features=np.full((10, 300), 1.7, dtype=np.float32))
    for seed in range(20):
        ids = Badge().select(outputs, 10, np.random.default_rng(seed)).ids
        assert 9 in ids[:2]
        assert sorted(ids.tolist()) == list(range(10))
