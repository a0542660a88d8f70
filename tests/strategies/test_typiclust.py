# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy
from tral_monai.strategies.typiclust import typicality


def _groups(labelled: np.ndarray | None = None) -> PoolOutputs:
    # Symmetric groups of 11, 9 and 7 around 0, 100 and 200, the middle the most typical; and one outlier.
    x = np.concatenate([c + np.linspace(-1, 1, m) ** 3 for c, m in ((0, 11), (100, 9), (200, 7))] + [[1000.0]])
    return PoolOutputs(ids=np.arange(28), features=x[:, None], labelled_features=labelled)


def test_typicality_by_hand() -> None:
    # Two nearest neighbours on a line 0, 1, 3: (1 + 3) / 2, (1 + 2) / 2, (2 + 3) / 2.
    x = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    assert typicality(x, 2) == pytest.approx([1 / 2, 1 / 1.5, 1 / 2.5], rel=1e-4)


def test_typicality_of_identical_and_of_single_rows_is_finite() -> None:
    assert np.isfinite(typicality(np.zeros((3, 2), dtype=np.float32), 2)).all()
    assert typicality(np.zeros((1, 2), dtype=np.float32), 20).tolist() == [0.0]


def test_the_typical_sample_of_each_cluster_largest_first_outliers_last() -> None:
    strategy = get_strategy("typiclust", max_clusters=4)
    selection = strategy.select(_groups(), 28, np.random.default_rng(0))
    assert selection.ids[:3].tolist() == [5, 15, 23]
    assert selection.ids[-1] == 27
    # One round more before the outlier: each group's second, then the largest again.
    assert [sum(np.array([0, 11, 20]) <= i) for i in selection.ids[3:6]] == [1, 2, 3]
    assert selection.reasons[0] == "most typical of a cluster of 11 samples with 0 labelled"


def test_clusters_without_labels_come_first() -> None:
    labelled = np.array([[0.0], [0.1]])
    selection = get_strategy("typiclust", max_clusters=4).select(_groups(labelled), 2, np.random.default_rng(0))
    assert selection.ids.tolist() == [15, 23]


def test_more_samples_than_clusters_goes_round() -> None:
    outputs = _groups().take(np.arange(20))
    selection = get_strategy("typiclust", max_clusters=2).select(outputs, 6, np.random.default_rng(0))
    assert (selection.ids < 11).tolist() == [True, False] * 3


@pytest.mark.parametrize("option", ["neighbours", "max_clusters", "min_cluster_size"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_bad_options(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be a whole number of at least 1"):
        get_strategy("typiclust", **{option: value})
