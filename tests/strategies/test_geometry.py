# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_info

from tral_monai.strategies import geometry
from tral_monai.strategies.geometry import (
    centred,
    greedy_cover,
    k_means,
    nearest_rows,
    single_thread,
    squared_to_nearest,
)


def _line(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def test_centring_keeps_distances_of_points_with_a_large_common_offset() -> None:
    points = np.array([[1e6, 0.0], [1e6 + 3, 4.0]])
    x, y = centred(points, points[:1])
    assert x.dtype == np.float32
    assert squared_to_nearest(x, y).tolist() == pytest.approx([0, 25], abs=1e-4)


def test_nearest_distance_against_scipy_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_CHUNK", 50)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(37, 5)).astype(np.float32), rng.normal(size=(11, 5)).astype(np.float32)
    np.testing.assert_allclose(squared_to_nearest(x, y), cdist(x, y).min(axis=1) ** 2, rtol=1e-4)


def test_cover_by_hand() -> None:
    # Labelled at 0: the farthest of 1, 2, 9, 10, 5 is 10; then 5 (5 from both); then 2 (2 from 0), 9 and 1 are 1 away.
    x = _line(1, 2, 9, 10, 5)
    rows, radii = greedy_cover(x, 3, squared_to_nearest(x, _line(0)))
    assert rows.tolist() == [3, 4, 1]
    assert radii.tolist() == pytest.approx([10, 5, 2])


def test_cover_without_labels_starts_at_the_middle() -> None:
    rows, radii = greedy_cover(_line(-5, -0.5, 5.5), 3, None)
    assert rows.tolist() == [1, 2, 0]
    assert radii.tolist() == pytest.approx([0, 6, 4.5])


def test_cover_takes_identical_points_once_each() -> None:
    rows, _ = greedy_cover(np.zeros((4, 3), dtype=np.float32), 4, None)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("block_rows", [1, 7, 64, 256])
@pytest.mark.parametrize("labelled", [0, 5])
def test_cover_against_the_plain_algorithm(monkeypatch: pytest.MonkeyPatch, block_rows: int, labelled: int) -> None:
    # Whole numbers: every distance is exact, and many are equal, of which the first row has to be taken.
    monkeypatch.setattr(geometry, "_BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(block_rows)
    x = rng.integers(-4, 5, size=(200, 3)).astype(np.float32)
    y = rng.integers(-4, 5, size=(labelled, 3)).astype(np.float32)
    rows, radii = greedy_cover(x, 200, squared_to_nearest(x, y) if labelled else None)
    distance = cdist(x, y, "sqeuclidean").min(axis=1) if labelled else np.full(200, np.inf)
    for j, (row, radius) in enumerate(zip(rows, radii, strict=True)):
        expected = int(np.argmin((x**2).sum(axis=1))) if j == 0 and not labelled else int(np.argmax(distance))
        assert row == expected
        assert radius == (0 if np.isinf(distance[row]) else pytest.approx(np.sqrt(distance[row])))
        distance = np.minimum(distance, ((x - x[row]) ** 2).sum(axis=1))
        distance[rows[: j + 1]] = -1


def test_nearest_rows_are_distinct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_CHUNK", 4)
    x = _line(0, 1, 10, 11)
    assert nearest_rows(x, _line(0.1, 0.2, 10.9)).tolist() == [0, 1, 3]


def test_k_means_finds_separated_groups() -> None:
    x = _line(0, 0.1, 50, 50.1, 99, 99.1)
    centres, labels = k_means(x, 3, np.random.default_rng(0))
    assert sorted(centres[:, 0].tolist()) == pytest.approx([0.05, 50.05, 99.05], abs=1e-3)
    assert labels[0] == labels[1] != labels[2]


def test_weights_pull_the_centroid() -> None:
    centres, _ = k_means(_line(0, 10), 1, np.random.default_rng(0), weights=np.array([3.0, 1.0]))
    assert centres[0, 0] == pytest.approx(2.5)


@pytest.mark.parametrize("weights", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
def test_zero_weights_still_give_k_clusters(weights: list[float]) -> None:
    centres, labels = k_means(_line(0, 10, 20), 3, np.random.default_rng(0), weights=np.array(weights))
    assert np.isfinite(centres).all()
    assert sorted(labels.tolist()) == [0, 1, 2]


def test_large_problems_go_by_mini_batches() -> None:
    # 25,000 rows x 100 columns x 1,000 clusters = 2.5e9.
    rng = np.random.default_rng(0)
    spots = rng.normal(size=(50, 100)).astype(np.float32) * 10
    x = spots[rng.integers(0, 50, size=25_000)] + rng.normal(size=(25_000, 100)).astype(np.float32) * 0.01
    centres, labels = k_means(x, 1000, rng)
    assert centres.shape == (1000, 100)
    assert np.abs(x - centres[labels]).max() < 1


def test_one_thread_inside_and_the_setting_back_outside() -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    with single_thread():
        assert all(pool["num_threads"] == 1 for pool in threadpool_info())
    assert [pool["num_threads"] for pool in threadpool_info()] == before
