# SPDX-License-Identifier: Apache-2.0
"""OSAL-ND and its four ablations on one pool worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy

NEAR_KNOWN, NEAR_UNKNOWN = [1.0, 2.0], [2.0, 1.0]


def _pool(labelled_unknown: int = 10) -> PoolOutputs:
    """Six images; the target finds one box in each but the last.

    image   known / all nuclei (auxiliary)   CI     LI     CI * LI
    1       3 / 3                            1/3    0.5    1/6
    2       2 / 2                            1      0.5    1/2
    3       1 / 5                            1      0.64   0.64
    4       2 / 4                            0.1    0.64   0.064
    5       0 / 1                            1      1      1
    6       0 / 0                            0      0      0
    """
    distances = [
        *[NEAR_KNOWN] * 3,
        *[NEAR_KNOWN] * 2,
        *[NEAR_KNOWN, *[NEAR_UNKNOWN] * 4],
        *[NEAR_KNOWN, NEAR_KNOWN, NEAR_UNKNOWN, NEAR_UNKNOWN],
        NEAR_UNKNOWN,
    ]
    target = boxes(
        [1, 1, 1, 1, 1, 0],
        evidence=[[4.0, 1, 1], [0, 0, 0], [0, 0, 0], [27, 0, 0], [0, 0, 0]],
        proposals_px=[[0, 0, 10, 5], [0, 0, 10, 5], [2, 2, 8, 8], [2, 2, 8, 8], [50, 50, 60, 60]],
    )
    return PoolOutputs(
        ids=[1, 2, 3, 4, 5, 6],
        detections=target,
        auxiliary_detections=boxes([3, 2, 5, 4, 1, 0], prototype_distances=distances),
        labelled_unknown=labelled_unknown,
    )


def _choose(name: str, n: int, pool: PoolOutputs | None = None, **options: object) -> list[int]:
    strategy = get_strategy(name, "nuclei", **options)
    return strategy.select(pool or _pool(), n, np.random.default_rng(0)).ids.tolist()


def test_information_by_hand() -> None:
    assert get_strategy("osal_nd").score(_pool()) == pytest.approx([1 / 6, 0.5, 0.64, 0.064, 1, 0])
    assert get_strategy("utss").score(_pool()) == pytest.approx([1 / 6, 0.5, 0.64, 0.064, 1, 0])
    assert get_strategy("osal_nd_without_ci").score(_pool()) == pytest.approx([0.5, 0.5, 0.64, 0.64, 1, 0])
    assert get_strategy("osal_nd_without_li").score(_pool()) == pytest.approx([1 / 3, 1, 1, 0.1, 1, 0])
    assert get_strategy("pcss").score(_pool()).tolist() == [3, 2, 1, 2, 0, 0]


def test_two_stages_by_hand() -> None:
    # n = 1: the candidates are image 1 and one of images 2 and 4, which tie.
    assert _choose("osal_nd", 1) in ([1], [2])
    # n = 2: images 1, 2, 4 and 3, of which 3 and 2 have the highest I. Image 5, of I = 1, is no candidate.
    selection = get_strategy("osal_nd").select(_pool(), 2, np.random.default_rng(0))
    assert selection.ids.tolist() == [3, 2]
    assert selection.scores.tolist() == pytest.approx([0.64, 0.5])
    assert selection.reasons[0] == (
        "candidate 4 of 4 with 1 known nucleus; class uncertainty 1.000 x location uncertainty 0.640"
    )


def test_ablations_by_hand() -> None:
    assert sorted(_choose("osal_nd_without_ci", 2)) == [3, 4]
    assert sorted(_choose("osal_nd_without_li", 2)) == [2, 3]
    assert _choose("utss", 2) == [5, 3]
    assert _choose("pcss", 1) == [1]
    assert sorted(_choose("pcss", 3)) == [1, 2, 4]


def test_reasons_of_the_ablations() -> None:
    def first(name: str) -> str:
        return get_strategy(name).select(_pool(), 1, np.random.default_rng(0)).reasons[0]

    assert first("pcss") == "3 known nuclei, rank 1 of 6"
    assert first("utss") == "class uncertainty 1.000 x location uncertainty 1.000, rank 1 of 6"
    assert "class uncertainty" not in first("osal_nd_without_ci")
    assert "location uncertainty" not in first("osal_nd_without_li")


def test_ties_among_candidates_fall_at_random() -> None:
    seen = {
        tuple(get_strategy("osal_nd", candidates=2).select(_pool(), 1, np.random.default_rng(s)).ids) for s in range(20)
    }
    # The second candidate is image 2 (I = 1/2, chosen) or image 4 (I = 0.064, then image 1 is chosen).
    assert seen == {(1,), (2,)}


def test_a_pool_smaller_than_2n_is_all_candidates() -> None:
    assert _choose("osal_nd", 4) == [5, 3, 2, 1]
    assert _choose("osal_nd", 6) == [5, 3, 2, 1, 4, 6]
    assert "of 6 with" in get_strategy("osal_nd").select(_pool(), 4, np.random.default_rng(0)).reasons[0]


def test_candidates_option() -> None:
    # One candidate per image asked for is PCSS.
    assert sorted(_choose("osal_nd", 3, candidates=1)) == [1, 2, 4]
    with pytest.raises(ConfigError, match="osal_nd: candidates must lie between 1"):
        get_strategy("osal_nd", candidates=0.5)


@pytest.mark.parametrize("name", ["osal_nd", "osal_nd_without_ci", "osal_nd_without_li", "pcss"])
def test_cold_start_falls_back_to_density_and_says_so(name: str) -> None:
    strategy = get_strategy(name)
    cold = strategy.select(_pool(9), 2, np.random.default_rng(0))
    warm = strategy.select(_pool(10), 2, np.random.default_rng(0))
    start = "cold start, density instead of known nuclei: 9 unknown nuclei labelled, fewer than 10; "
    assert all(reason.startswith(start) for reason in cold.reasons)
    assert not any("cold start" in reason for reason in warm.reasons)


def test_cold_start_ranks_by_all_nuclei() -> None:
    # All nuclei: 3, 2, 5, 4, 1, 0.
    assert _choose("pcss", 6, _pool(0)) == [3, 4, 1, 2, 5, 6]
    # Candidates 3, 4, 1, 2, of which 3 and 2 have the highest I; with n = 1 candidates 3 and 4.
    assert _choose("osal_nd", 1, _pool(0)) == [3]
    assert "with 5 nuclei; " in get_strategy("osal_nd").select(_pool(0), 1, np.random.default_rng(0)).reasons[0]
    # A round may be told to trust the prototypes at once.
    assert _choose("pcss", 1, _pool(0), min_unknown=0) == [1]
    with pytest.raises(ConfigError, match="pcss: min_unknown must be a whole number"):
        get_strategy("pcss", min_unknown=-1)


def test_information_per_nucleus() -> None:
    pool = _pool()
    two = boxes([1, 2], evidence=[[4.0, 1, 1], [0, 0, 0], [0, 0, 0]], proposals_px=[[0, 0, 10, 5]] * 3)
    small = PoolOutputs(
        ids=[1, 2],
        detections=two,
        auxiliary_detections=boxes([0, 0], prototype_distances=np.empty((0, 2))),
        labelled_unknown=10,
    )
    assert get_strategy("osal_nd", per="nucleus").score(small) == pytest.approx([1 / 6, 1 / 4])
    assert get_strategy("osal_nd").score(small) == pytest.approx([1 / 6, 1 / 2])
    reason = get_strategy("osal_nd", per="nucleus").select(pool, 1, np.random.default_rng(0)).reasons[0]
    assert reason.endswith(", over 1 nucleus found")
    with pytest.raises(ConfigError, match="osal_nd: per must be one of"):
        get_strategy("osal_nd", per="box")


def test_what_the_round_must_train() -> None:
    kinds = {name: get_strategy(name).auxiliary for name in ("osal_nd", "osal_nd_without_ci", "pcss", "utss")}
    assert kinds == {"osal_nd": "prototype", "osal_nd_without_ci": "prototype", "pcss": "prototype", "utss": None}


def test_negative_evidence_is_refused() -> None:
    pool = _pool()
    found = dataclasses.replace(pool.found(), evidence=-np.asarray(pool.found().evidence))
    with pytest.raises(StrategyError, match="evidence must be 0 or more"):
        get_strategy("utss").score(dataclasses.replace(pool, detections=found))
