# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.strategies.nuclei.common import aggregate, candidate_count, min_per_image, nuclei, two_stages
from tral_monai.strategies.nuclei.uncertainty import NucleusUncertainty


def test_aggregates_by_hand() -> None:
    found, values = boxes([2, 0, 1]), np.array([1.0, 3.0, 5.0])
    assert aggregate(found, values, "mean").tolist() == [2, 0, 5]
    assert aggregate(found, values, "sum").tolist() == [4, 0, 5]
    assert aggregate(found, values, "max").tolist() == [3, 0, 5]
    assert min_per_image(found, values, empty=7).tolist() == [1, 7, 5]


def test_counted_boxes_keep_only_what_is_used() -> None:
    found = boxes(
        [2, 1],
        scores=np.array([0.05, 0.0499, 0.9], dtype=np.float32),
        probabilities=np.full((3, 2), 0.5),
        features=np.zeros((3, 4)),
    )
    kept = NucleusUncertainty().counted(found)
    assert kept.counts.tolist() == [1, 1]
    assert sorted(kept.columns()) == ["boxes_px", "labels", "probabilities", "scores"]
    assert NucleusUncertainty(min_score=0).counted(found).counts.tolist() == [2, 1]


def test_a_nucleus_of_uncertain_class_counts_once() -> None:
    # One RoI that may be of either class, with a box for each; one of class 1; one whose better box NMS has dropped.
    probabilities = np.array([[0.1, 0.5, 0.4], [0.1, 0.5, 0.4], [0.1, 0.1, 0.8], [0.1, 0.6, 0.3]])
    found = boxes([3, 1], labels=[0, 1, 1, 1], scores=[0.5, 0.4, 0.8, 0.3], probabilities=probabilities)
    strategy = NucleusUncertainty()
    assert strategy.counted(found).counts.tolist() == [3, 1]
    assert strategy.counted(found, once=True).counts.tolist() == [2, 0]
    assert strategy.counted(boxes([3, 1]), once=True).counts.tolist() == [3, 1]
    assert strategy.counted(boxes([0], probabilities=np.zeros((0, 3))), once=True).counts.tolist() == [0]


@pytest.mark.parametrize(
    ("pool", "n", "ratio", "expected"),
    [(100, 10, 2.0, 20), (15, 10, 2.0, 15), (10, 10, 2.0, 10), (100, 10, 1.1, 11), (100, 3, 1.2, 4), (100, 5, 1.0, 5)],
)
def test_candidate_count(pool: int, n: int, ratio: float, expected: int) -> None:
    assert candidate_count(pool, n, ratio) == expected


def test_two_stages_by_hand() -> None:
    first = np.array([5.0, 9.0, 1.0, 7.0, 8.0])
    second = np.array([0.9, 0.1, 1.0, 0.5, 0.2])
    # Candidates by `first`: 1, 4, 3. The best `second` of them: 3 (0.5), then 4 (0.2); row 2 is no candidate.
    rows, places = two_stages(first, second, 2, 3, np.random.default_rng(0))
    assert rows.tolist() == [3, 4]
    assert places.tolist() == [2, 1]


def test_equal_scores_fall_at_random_but_by_the_seed() -> None:
    def choose(seed: int) -> list[int]:
        return two_stages(np.ones(50), np.ones(50), 5, 10, np.random.default_rng(seed))[0].tolist()

    assert choose(0) == choose(0)
    assert len({tuple(choose(seed)) for seed in range(10)}) == 10


def test_words() -> None:
    assert nuclei(1, "known") == "1 known nucleus"
    assert nuclei(41.0) == "41 nuclei"
