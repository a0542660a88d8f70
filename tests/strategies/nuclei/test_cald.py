# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tests.strategies.nuclei.outputs import boxes
from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import ConfigError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.nuclei.cald import _evenly_by_rank, class_difference
from tral_monai.strategies.registry import get_strategy

SQUARE, HALF = [0.0, 0, 10, 10], [0.0, 0, 10, 5]
LN2 = np.log(2)


def _pool() -> PoolOutputs:
    # Background, class 0, class 1.
    found = boxes(
        [2, 0, 1, 1],
        boxes_px=[SQUARE, [50.0, 50, 60, 60], SQUARE, SQUARE],
        probabilities=[[0, 1.0, 0], [0.2, 0.8, 0], [0, 1, 0], [0, 0, 1]],
        labels=[0, 0, 0, 1],
        scores=[1.0, 0.8, 1, 1],
    )
    view = boxes(
        [2, 1, 1, 0],
        boxes_px=[HALF, [50.0, 50, 60, 60], SQUARE, SQUARE],
        probabilities=[[0, 1.0, 0], [0.2, 0.8, 0], [0, 1, 0], [0, 0, 1.0]],
        labels=[0, 0, 0, 1],
        scores=[1.0, 0.8, 1, 1],
    )
    return PoolOutputs(
        ids=[1, 2, 3, 4], detections=found, view_detections=(view,), labelled_class_means=np.array([3.0, 3.0])
    )


def test_consistency_by_hand() -> None:
    # Image 1: box 1 m = 0.5 + 1 * 1 = 1.5, |1.5 - 1.3| = 0.2; box 2 m = 1 + 0.8 = 1.8, 0.5. The lower: 0.2.
    # Image 2: no box: beta. Image 3: the view is of the other class, p and q disjoint, JS = ln 2:
    # m = 1 + 1 * (1 - ln 2). Image 4: no box in the view, m = 0.
    expected = [0.2, 1.3, abs(2 - LN2 - 1.3), 1.3]
    assert get_strategy("cald").score(_pool()) == pytest.approx([-e for e in expected])


def test_beta() -> None:
    # beta 1.5: box 1 of image 1 is exactly there.
    scores = get_strategy("cald", beta=1.5).score(_pool())
    assert scores == pytest.approx([0, -1.5, -abs(2 - LN2 - 1.5), -1.5])


def test_released_quirks_by_hand() -> None:
    # An image without a box and a view without one count 0; nothing exceeds 1.
    strategy = get_strategy("cald", quirks="released")
    assert strategy.score(_pool()) == pytest.approx([-0.2, 0, -abs(0.7 - LN2), 0])
    assert get_strategy("cald", quirks="released", beta=0).score(_pool())[0] == pytest.approx(-1)
    chosen = strategy.select(_pool(), 1, np.random.default_rng(0))
    assert chosen.ids.tolist() == [2]


def test_mean_over_views() -> None:
    outputs = _pool()
    views = (outputs.view_detections[0], outputs.found())  # type: ignore[index]
    both = PoolOutputs(
        ids=outputs.ids, detections=outputs.detections, view_detections=views, labelled_class_means=[1.0, 1.0]
    )
    # Against itself: m = 1 + 1 = 2 and 1 + 0.8 = 1.8: 0.5 is the lower; (0.2 + 0.5) / 2. Images 3 and 4: m = 2.
    expected = [0.35, 1.3, (abs(0.7 - LN2) + 0.7) / 2, (1.3 + 0.7) / 2]
    assert get_strategy("cald").score(both) == pytest.approx([-e for e in expected])


def test_class_difference_by_hand() -> None:
    # D_L = softmax(ln 3, 0) = (3/4, 1/4). Image 1: highest scores (ln 3, 0), averaged over two passes (2 ln 3, 0) and
    # (0, 0): the same, JS 0. Image 2: nothing found: (1/2, 1/2).
    ln3 = np.log(3)
    one = boxes([2, 0], labels=[0, 0], scores=np.array([2 * ln3, 0.1]))
    two = boxes([0, 0])
    difference = class_difference(np.array([ln3, 0.0]), (one, two))
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    m = (p + q) / 2
    js = 0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum()
    assert difference == pytest.approx([0, js], abs=1e-12)


def test_stage_two_takes_the_class_that_is_labelled_little() -> None:
    # All three are as consistent; class 0 is labelled much, so the image of class 1 is chosen.
    found = boxes([1, 1, 1], labels=[0, 1, 0], probabilities=[[0, 1.0, 0], [0, 0, 1], [0, 1, 0]], scores=[1.0, 1, 1])
    outputs = PoolOutputs(
        ids=[1, 2, 3], detections=found, view_detections=(found,), labelled_class_means=np.array([5.0, 0.0])
    )
    selection = get_strategy("cald", candidates=3).select(outputs, 1, np.random.default_rng(0))
    assert selection.ids.tolist() == [2]
    assert selection.reasons[0].startswith("one of 3 candidates, 0.700 from beta over 1 views; divergence from")


def test_stage_one_cuts_the_candidates() -> None:
    # 1.2 * 1, rounded up, are two candidates: images 3 (0.007) and 1 (0.2).
    for seed in range(5):
        chosen = get_strategy("cald").select(_pool(), 1, np.random.default_rng(seed))
        assert chosen.ids.tolist()[0] in (1, 3)


def test_even_thinning_by_rank() -> None:
    rng = np.random.default_rng(0)
    found = boxes([60, 45, 3], scores=rng.permutation(108) / 108)
    keep = _evenly_by_rank(found)
    assert [keep[:60].sum(), keep[60:105].sum(), keep[105:].sum()] == [50, 45, 3]
    kept = np.sort(np.asarray(found.scores)[:60][keep[:60]])[::-1]
    every = np.sort(np.asarray(found.scores)[:60])[::-1]
    assert kept.tolist() == [every[round(i * 59 / 49)] for i in range(50)]


def test_a_label_beyond_the_classes() -> None:
    outputs = _pool()
    strange = Detections(**{**vars(outputs.found()), "labels": np.array([0, 0, 0, 7])})
    broken = PoolOutputs(
        ids=outputs.ids,
        detections=strange,
        view_detections=outputs.view_detections,
        labelled_class_means=[1.0, 1.0],
    )
    with pytest.raises(
        StrategyError, match="labels of boxes run from 0 to 7, but 'labelled_class_means' has 2 classes"
    ):
        get_strategy("cald").select(broken, 1, np.random.default_rng(0))


def test_no_views() -> None:
    outputs = _pool()
    without = PoolOutputs(
        ids=outputs.ids, detections=outputs.detections, view_detections=(), labelled_class_means=[1.0, 1.0]
    )
    with pytest.raises(StrategyError, match="cald: 'view_detections' is empty"):
        get_strategy("cald").score(without)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 3}, "cald: beta must lie between 0 and 2"),
        ({"candidates": 0.5}, "cald: candidates must lie between 1"),
        ({"quirks": "all"}, "cald: quirks must be one of"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_strategy("cald", **options)
