# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.strategies.nuclei.outputs import boxes, generated_pool
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.nuclei.openal import reference_distances, whitening
from tral_monai.strategies.registry import get_strategy


def test_whitening_by_hand() -> None:
    # Variances 4 and 1 about (1, 2): (3, 3) is (2 / 2, 1 / 1) away.
    members = np.array([[3, 2], [-1, 2], [1, 3], [1, 1]], dtype=np.float32) * [[1, 1]]
    covariance = np.array([[2.0, 0], [0, 0.5]])
    centre, w = whitening(members.astype(np.float32), 0.0)
    assert centre.tolist() == [1, 2]
    np.testing.assert_allclose(w @ w.T, np.linalg.inv(covariance), atol=1e-9)
    # Half identity: variances 1.5 and 0.75.
    _, w = whitening(members.astype(np.float32), 0.5)
    np.testing.assert_allclose(w @ w.T, np.diag([1 / 1.5, 1 / 0.75]), atol=1e-9)
    # By default D / (D + m) = 2 / 6.
    _, w = whitening(members.astype(np.float32), None)
    np.testing.assert_allclose(w @ w.T, np.linalg.inv(covariance * 2 / 3 + np.eye(2) / 3), atol=1e-9)


def test_singular_covariance() -> None:
    line = np.array([[0, 0], [1, 1], [2, 2]], dtype=np.float32)
    # The pseudo-inverse knows only the direction of the line; shrunk, the other direction counts too.
    _, plain = whitening(line, 0.0)
    assert plain.shape == (2, 1)
    np.testing.assert_allclose(plain @ plain.T, np.linalg.pinv(np.cov(line.T, bias=True)), atol=1e-6)
    _, shrunk = whitening(line, None)
    assert shrunk.shape == (2, 2)


def test_a_cluster_of_one_nucleus_is_round() -> None:
    centre, w = whitening(np.array([[5.0, 6.0, 7.0]], dtype=np.float32), None)
    # D / (D + 1) = 3 / 4 of the identity.
    np.testing.assert_allclose(w @ w.T, np.eye(3) / 0.75, atol=1e-9)
    assert centre.tolist() == [5, 6, 7]


def test_distance_to_one_cluster_against_scipy() -> None:
    rng = np.random.default_rng(0)
    reference, features = rng.normal(size=(200, 5)) + 3, rng.normal(size=(50, 5)) + 3
    unit = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    mean, deviation = unit.mean(axis=0), unit.std(axis=0)
    standard = (unit - mean) / deviation
    x = (features / np.linalg.norm(features, axis=1, keepdims=True) - mean) / deviation
    precision = np.linalg.inv(np.cov(standard.T, bias=True))
    expected = cdist(x, np.zeros((1, 5)), "mahalanobis", VI=precision)[:, 0] ** 2
    found = reference_distances(features.astype(np.float32), reference.astype(np.float32), clusters=1, shrinkage=0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_nearest_of_several_clusters() -> None:
    # Three tight directions; a feature on the third is nearest to it, in whatever order the reference came.
    corners = np.eye(3, dtype=np.float32)
    rng = np.random.default_rng(0)
    reference = (np.repeat(corners, 30, axis=0) + rng.normal(0, 0.01, (90, 3))).astype(np.float32)
    features = np.array([[0, 0, 9], [1, 1, 1]], dtype=np.float32)
    near, far = reference_distances(features, reference, clusters=3)
    assert near < 2 < far
    again = reference_distances(features, reference[rng.permutation(90)], clusters=3)
    assert again == pytest.approx([near, far], rel=1e-3)


@pytest.mark.parametrize("members", [1, 4])
def test_fewer_unknown_nuclei_than_clusters(members: int) -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(members, 4)).astype(np.float32)
    distances = reference_distances(reference, reference, clusters=9)
    # Each of them is a cluster of its own, at distance 0 from itself.
    assert distances == pytest.approx(np.zeros(members), abs=1e-4)


def _pool(unknown: np.ndarray) -> PoolOutputs:
    # Three images of one nucleus each: like the known ones, between, like the unknown.
    rng = np.random.default_rng(0)
    known = (np.array([[1, 0, 0.2]]) + rng.normal(0, 0.05, (60, 3))).astype(np.float32)
    found = boxes(
        [1, 1, 1, 0],
        features=np.array([[1, 0, 0.2], [0.7, 0.7, 0.2], [0, 1, 0.2]], dtype=np.float32),
        probabilities=np.array([[0.5, 0.5], [0.1, 0.9], [0.5, 0.5]]),
        boxes_px=[[0, 0, 10, 10]] * 3,
        proposals_px=[[0, 0, 10, 5]] * 3,
    )
    return PoolOutputs(ids=[1, 2, 3, 4], detections=found, known_reference=known, unknown_reference=unknown)


def _unknown() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (np.array([[0, 1, 0.2]]) + rng.normal(0, 0.05, (60, 3))).astype(np.float32)


def test_known_is_low_and_unknown_is_high() -> None:
    scores = get_strategy("openal").score(_pool(_unknown()))
    # Like the known: s1 is the least (0), s2 the most (1): s = -1. Like the unknown: +1. No box: +1, the worst.
    assert scores[[0, 2, 3]] == pytest.approx([1, -1, -1], abs=1e-6)
    assert -1 < scores[1] < 1


def test_no_unknown_labelled_yet() -> None:
    outputs = _pool(np.empty((0, 3), dtype=np.float32))
    # s2 = 0: only the distance to the known counts.
    scores = get_strategy("openal").score(outputs)
    assert scores[[0, 2, 3]] == pytest.approx([0, -1, -1], abs=1e-6)
    selection = get_strategy("openal").select(outputs, 2, np.random.default_rng(0))
    assert all(reason.startswith("no unknown nucleus labelled yet; candidate ") for reason in selection.reasons)


def test_nothing_labelled_yet() -> None:
    none = np.empty((0, 3), dtype=np.float32)
    outputs = dataclasses.replace(_pool(none), known_reference=none)
    selection = get_strategy("openal").select(outputs, 1, np.random.default_rng(0))
    assert selection.reasons[0].startswith("no known and no unknown nucleus labelled yet; ")


def test_second_stage_by_hand() -> None:
    # n = 1: two candidates, images 1 and 2; of these the entropy of image 1 is higher: ln 2 * LI 0.5.
    selection = get_strategy("openal").select(_pool(_unknown()), 1, np.random.default_rng(0))
    assert selection.ids.tolist() == [1]
    assert selection.scores.tolist() == pytest.approx([0.5 * np.log(2)])
    assert selection.reasons == (
        "candidate 1 of 2 with distance to known less that to unknown -1.000; entropy 0.693 x location uncertainty "
        "0.500",
    )


def test_number_of_candidates() -> None:
    outputs = generated_pool(40)

    def candidates(**options: object) -> str:
        return (
            get_strategy("openal", **options).select(outputs, 5, np.random.default_rng(0)).reasons[0].split(" with")[0]
        )

    assert candidates().endswith("of 10")  # 2 * 5 are more than a tenth of 40
    assert candidates(ratio=1.0).endswith("of 5")  # a tenth would be 4, fewer than asked for
    assert candidates(fraction=0.5).endswith("of 20")


def test_references_of_another_width() -> None:
    outputs = _pool(_unknown())
    with pytest.raises(StrategyError, match=r"known_reference has width 7 but detections\.features 3"):
        dataclasses.replace(outputs, known_reference=np.zeros((2, 7), dtype=np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 2}, "openal: fraction must lie between 0 and 1"),
        ({"ratio": 0}, "openal: ratio must lie between 1"),
        ({"clusters": 0}, "openal: clusters must be a whole number"),
        ({"shrinkage": 1.5}, "openal: shrinkage must lie between 0 and 1"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_strategy("openal", **options)
