# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import EmptyPoolError, StrategyError
from tral_monai.strategies.base import PoolOutputs
from tral_monai.strategies.registry import get_strategy


def test_take_keeps_what_belongs_to_classes() -> None:
    outputs = PoolOutputs(ids=[5, 6, 7], pool_classes=[0, 1, 1], positives=[3, 4], class_names=("a", "b"))
    taken = outputs.take(np.array([2, 0]))
    assert taken.ids.tolist() == [7, 5]
    assert taken.pool_classes is not None
    assert taken.pool_classes.tolist() == [1, 0]
    assert taken.class_names == ("a", "b")
    assert taken.n_classes == 2


def test_number_of_classes_from_pool_classes_alone() -> None:
    assert PoolOutputs(ids=[1, 2], pool_classes=[0, 3]).n_classes == 4


def test_number_of_classes_unknown() -> None:
    with pytest.raises(StrategyError, match="number of classes is unknown"):
        _ = PoolOutputs(ids=[1]).n_classes


def test_class_names_have_a_fallback() -> None:
    assert PoolOutputs(ids=[1]).class_name(2) == "class 2"
    assert PoolOutputs(ids=[1], class_names=("Blood",)).class_name(0) == "Blood"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ids": [1, 1]}, "ids must be unique"),
        ({"ids": [1.5]}, "ids must hold whole numbers"),
        ({"ids": [[1]]}, "ids must have 1 dimensions"),
        ({"ids": [1, 2], "pool_classes": [0]}, "pool_classes has 1 rows for 2 ids"),
        ({"ids": [1], "probabilities": [[0.5, 0.5]], "positives": [1]}, "disagree on the number of classes"),
        ({"ids": [1], "probabilities": [1.0]}, "probabilities must have 2 dimensions"),
        ({"ids": [1], "probabilities": [[1, 0]]}, "must hold floating point numbers"),
        ({"ids": [1], "features": [[1.0]], "labelled_features": [[1.0, 2.0]]}, "features have width 1"),
        ({"ids": [1], "pool_classes": [-1]}, "leave samples of unknown class out"),
        ({"ids": [1], "pool_classes": [2], "positives": [1, 1]}, "but the class indices are 0 to 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        PoolOutputs(**fields)  # type: ignore[arg-type]


def test_logits_are_told_from_probabilities() -> None:
    outputs = PoolOutputs(ids=[1], probabilities=[[3.0, -1.0]])
    with pytest.raises(StrategyError, match="apply softmax to the logits first"):
        get_strategy("uncertainty").score(outputs)


def test_half_precision_softmax_passes() -> None:
    p = np.full((1, 6), 1 / 6, dtype=np.float16)
    assert get_strategy("uncertainty").score(PoolOutputs(ids=[1], probabilities=p)) == pytest.approx(
        np.log(6), abs=1e-3
    )


def test_negative_counts_are_refused() -> None:
    outputs = PoolOutputs(ids=[1], pool_classes=[0], false_negatives=[-1], positives=[3])
    with pytest.raises(StrategyError, match="'false_negatives' must not be negative"):
        get_strategy("tri_al_iter").score(outputs)


def test_array_names_what_brings_a_missing_field() -> None:
    with pytest.raises(StrategyError, match=r"'pool_classes' is needed.*oracle 'class_request'"):
        PoolOutputs(ids=[1]).array("pool_classes")


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_n_must_be_a_positive_whole_number(n: object) -> None:
    with pytest.raises(StrategyError, match="n must be a whole number of at least 1"):
        get_strategy("random").select(PoolOutputs(ids=[1]), n, np.random.default_rng(0))  # type: ignore[arg-type]


def test_empty_pool() -> None:
    empty = PoolOutputs(ids=np.empty(0, dtype=np.int64))
    with pytest.raises(EmptyPoolError, match="nothing is left in the pool"):
        get_strategy("random").select(empty, 1, np.random.default_rng(0))
    with pytest.raises(EmptyPoolError, match="nothing is left in the pool"):
        get_strategy("random").score(empty)


def test_an_empty_list_of_ids_is_an_empty_pool() -> None:
    with pytest.raises(EmptyPoolError):
        get_strategy("random").score(PoolOutputs(ids=[]))


def _boxes(*counts: int, **columns: object) -> Detections:
    total = sum(counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    px = np.arange(4 * total, dtype=np.float32).reshape(total, 4)
    return Detections(offsets=offsets, boxes_px=px, labels=np.zeros(total), scores=np.ones(total), **columns)  # type: ignore[arg-type]


def test_take_keeps_images_with_their_boxes() -> None:
    outputs = PoolOutputs(
        ids=[5, 6, 7],
        detections=_boxes(1, 0, 2),
        view_detections=[_boxes(0, 1, 1), _boxes(1, 1, 1)],
        predicted_losses=[0.1, 0.2, 0.3],
        labelled_unknown=3,
    )
    taken = outputs.take(np.array([2, 0]))
    assert taken.found().counts.tolist() == [2, 1]
    assert taken.found().boxes_px[:, 0].tolist() == [4, 8, 0]
    assert taken.view_detections is not None
    assert [view.counts.tolist() for view in taken.view_detections] == [[1, 0], [1, 1]]
    assert taken.array("predicted_losses").tolist() == [0.3, 0.1]
    assert taken.labelled_unknown == 3


def test_number_of_classes_without_background() -> None:
    found = _boxes(1, probabilities=np.full((1, 3), 1 / 3))
    assert PoolOutputs(ids=[1], detections=found).n_classes == 2
    assert PoolOutputs(ids=[1], detections=found, labelled_class_means=[1.0, 2.0]).n_classes == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"detections": _boxes(1, 1)}, "PoolOutputs.detections holds 2 images for 1 ids"),
        ({"noise_detections": [_boxes(1), _boxes()]}, r"noise_detections\[1\] holds 0 images for 1 ids"),
        ({"detections": [1, 2]}, "PoolOutputs.detections must hold Detections, but holds list"),
        ({"view_detections": [3]}, "PoolOutputs.view_detections must hold Detections, but holds int"),
        ({"predicted_losses": [0.5, 0.5]}, "predicted_losses has 2 rows for 1 ids"),
        ({"labelled_unknown": -1}, "labelled_unknown must be a number of nuclei, 0 or more, but is -1"),
        ({"labelled_unknown": True}, "labelled_unknown must be a number of nuclei"),
        ({"known_reference": [1.0]}, "known_reference must have 2 dimensions"),
        (
            {"class_names": ("a",), "detections": _boxes(1, probabilities=np.full((1, 3), 1 / 3))},
            "disagree on the number of classes.*without background': 2",
        ),
        (
            {"detections": _boxes(1, features=np.zeros((1, 3))), "unknown_reference": np.zeros((2, 4))},
            r"unknown_reference has width 4 but detections\.features 3",
        ),
    ],
)
def test_contradictions_of_detections_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        PoolOutputs(ids=[1], **fields)  # type: ignore[arg-type]


def test_found_names_what_brings_detections() -> None:
    with pytest.raises(StrategyError, match=r"'detections' is needed, .* the target detector run over the pool"):
        PoolOutputs(ids=[1]).found()
    with pytest.raises(StrategyError, match=r"'auxiliary_detections' is needed"):
        PoolOutputs(ids=[1]).found("auxiliary_detections")
