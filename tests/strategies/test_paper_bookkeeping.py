# SPDX-License-Identifier: Apache-2.0
"""The label counts of TRI-AL (Fuster et al. 2023, Table I and section III), replayed with pools of the real size."""

from __future__ import annotations

import numpy as np
import pytest

from tral_monai.data.pool import Pool
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy
from tral_monai.strategies.tri_al_entropy import TriALEntropy

NAMES = ("Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
TRAIN = np.array([35_105, 65_920, 67_007, 86_978, 91_006])  # Table I
INITIAL_PER_CLASS, S, TRAININGS = 25_000, 20_000, 5
VALIDATION = np.full(5, 2_500)


def _start() -> tuple[Pool, np.ndarray]:
    classes = np.repeat(np.arange(5), TRAIN)
    pool = Pool(np.arange(TRAIN.sum()))
    for c in range(5):
        pool.label(np.flatnonzero(classes == c)[:INITIAL_PER_CLASS])
    return pool, classes


def _outputs(pool: Pool, classes: np.ndarray, false_negatives: np.ndarray) -> PoolOutputs:
    ids = pool.unlabelled
    return PoolOutputs(
        ids=ids,
        pool_classes=classes[ids],
        false_negatives=false_negatives,
        positives=VALIDATION,
        class_names=NAMES,
    )


def _run(name: str, false_negatives: np.ndarray, **options: object) -> tuple[list[int], list[np.ndarray], str | None]:
    """Labels at each training, class counts of each query, and why the run stopped."""
    pool, classes = _start()
    strategy = get_strategy(name, **options)
    generator = np.random.default_rng(0)
    labels, queries = [len(pool.labelled)], []
    while len(labels) < TRAININGS:
        selection = strategy.select(_outputs(pool, classes, false_negatives), S, generator)
        if selection.stop is not None:
            return labels, queries, selection.stop
        queries.append(np.bincount(classes[selection.ids], minlength=5))
        pool.label(selection.ids)
        labels.append(len(pool.labelled))
    return labels, queries, None


EQUAL = np.full(5, 300)


def test_the_pools_after_the_initial_labels() -> None:
    pool, classes = _start()
    assert TRAIN.sum() == 346_016
    assert len(pool.labelled) == 125_000
    assert np.bincount(classes[pool.unlabelled]).tolist() == [10_105, 40_920, 42_007, 61_978, 66_006]


def test_five_trainings_spend_59_percent_of_the_labels() -> None:
    # Misses as Table II suggests: stroma hardest, urothelium and muscle easiest.
    labels, queries, stop = _run("tri_al_iter", np.array([342, 230, 200, 331, 180]))
    assert labels == [125_000, 145_000, 165_000, 185_000, 205_000]
    assert all(q.sum() == S for q in queries)
    assert stop is None
    assert round(100 * labels[-1] / TRAIN.sum(), 1) == 59.2


def test_blood_runs_out_first_and_the_others_take_its_share() -> None:
    labels, queries, _ = _run("tri_al_iter", EQUAL)
    assert queries[0].tolist() == [4_000] * 5
    assert queries[1].tolist() == [4_000] * 5
    # 10,105 - 8,000 = 2,105 of blood are left; the missing 1,895 are shared: 473.75 each, ties to the lower index.
    assert queries[2].tolist() == [2_105, 4_474, 4_474, 4_474, 4_473]
    assert queries[3].tolist() == [0, 5_000, 5_000, 5_000, 5_000]
    assert labels[-1] == 205_000


def test_ood_stops_at_the_third_query() -> None:
    labels, queries, stop = _run("tri_al_ood", EQUAL)
    assert labels == [125_000, 145_000, 165_000]
    assert len(queries) == 2
    assert stop == "the pool of Blood holds 2105 of 4000 samples asked for"


def test_as_released_the_shortfall_is_silent() -> None:
    labels, queries, stop = _run("tri_al_iter", EQUAL, quirks="released")
    assert [q.tolist() for q in queries[2:]] == [[2_105, 4_000, 4_000, 4_000, 4_000], [0, 4_000, 4_000, 4_000, 4_000]]
    assert labels[-1] == 205_000 - 1_895 - 4_000
    assert stop is None


def test_as_released_truncation_loses_up_to_four_labels_per_round() -> None:
    # 20,000 * (1, 1, 1, 1, 3) / 7 = 2857.14... and 8571.43: truncated sum 4 * 2857 + 8571 = 19,999.
    labels, _, _ = _run("tri_al_iter", np.array([1, 1, 1, 1, 3]), quirks="released")
    assert labels[:3] == [125_000, 144_999, 164_998]


def test_as_released_a_model_without_misses_asks_for_a_fifth_each() -> None:
    _, queries, _ = _run("tri_al_iter", np.zeros(5), quirks="released")
    assert queries[0].tolist() == [4_000] * 5


@pytest.mark.parametrize("seed", [0, 1])
def test_entropy_arm_keeps_20000_of_30000_candidates(seed: int) -> None:
    pool, classes = _start()
    ids = pool.unlabelled
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(ids), 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    outputs = PoolOutputs(
        ids=ids, probabilities=probabilities, pool_classes=classes[ids], class_distribution=TRAIN, class_names=NAMES
    )
    strategy = TriALEntropy()
    rows = strategy.candidate_rows(outputs, S, np.random.default_rng(seed))
    assert len(np.unique(rows)) == 30_000
    # delta of the entire training set: 30,000 * 35,105 / 346,016 = 3,043.64 of blood, and so on.
    exact = 30_000 * TRAIN / 346_016
    assert np.abs(np.bincount(classes[ids[rows]]) - exact).max() < 1
    selection = strategy.select(outputs, S, np.random.default_rng(seed))
    assert len(np.unique(selection.ids)) == S
    # The same generator state draws the same candidates: what was left out is at most as entropic as what was kept.
    left_out = np.setdiff1d(ids[rows], selection.ids)
    assert len(left_out) == 10_000
    scores = strategy.score(outputs)[np.searchsorted(ids, left_out)]
    assert scores.max() <= selection.scores.min()
