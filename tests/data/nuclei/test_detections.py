# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.data.nuclei.detections import Detections, concatenate
from tral_monai.errors import StrategyError


@pytest.fixture
def found():
    """Three images with 2, 0 and 3 boxes; box i is (i, i, i + 1, i + 1) with score i / 10."""
    corner = np.arange(5, dtype=np.float32)[:, None]
    return Detections(
        offsets=np.array([0, 2, 2, 5]),
        boxes_px=np.hstack([corner, corner, corner + 1, corner + 1]),
        labels=[0, 1, 1, 0, 2],
        scores=np.arange(5) / 10,
        features=np.eye(5),
    )


def test_which_box_is_whose(found):
    assert len(found) == 3
    assert found.counts.tolist() == [2, 0, 3]
    assert found.image_of_box.tolist() == [0, 0, 2, 2, 2]
    assert found.labels.dtype == np.int64
    assert list(found.columns()) == ["boxes_px", "labels", "scores", "features"]


def test_per_image_figures(found):
    assert found.sum_per_image(found.scores).tolist() == pytest.approx([0.1, 0, 0.9])
    assert found.mean_per_image(found.scores).tolist() == pytest.approx([0.05, 0, 0.3])
    assert found.mean_per_image(found.scores, empty=-1).tolist() == pytest.approx([0.05, -1, 0.3])
    assert found.max_per_image(found.scores).tolist() == pytest.approx([0.1, 0, 0.4])
    assert found.max_per_image(-found.scores, empty=9).tolist() == pytest.approx([0, 9, -0.2])


def test_images_in_any_order(found):
    taken = found.take_images([2, 1, 2, 0])
    assert taken.counts.tolist() == [3, 0, 3, 2]
    assert taken.labels.tolist() == [1, 0, 2, 1, 0, 2, 0, 1]
    assert taken.features.argmax(1).tolist() == [2, 3, 4, 2, 3, 4, 0, 1]
    assert found.of_image(2).scores.tolist() == pytest.approx([0.2, 0.3, 0.4])
    assert len(found.take_images([])) == 0


def test_some_of_the_boxes(found):
    kept = found.keep(found.scores > 0.15)
    assert kept.counts.tolist() == [0, 0, 3]
    assert kept.labels.tolist() == [1, 0, 2]
    assert found.keep(np.zeros(5, bool)).counts.tolist() == [0, 0, 0]


def test_concatenation_undoes_division(found):
    again = concatenate([found.take_images([0]), found.take_images([1, 2])])
    assert again.offsets.tolist() == found.offsets.tolist()
    for name, column in found.columns().items():
        assert np.array_equal(again.columns()[name], column)
    with pytest.raises(StrategyError, match="There are no detections to concatenate"):
        concatenate([])
    bare = Detections(offsets=[0, 0], boxes_px=np.zeros((0, 4)), labels=[], scores=np.zeros(0))
    with pytest.raises(StrategyError, match="Detections of different columns cannot be concatenated"):
        concatenate([found, bare])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": [1, 5]}, "offsets must start at 0 and never fall"),
        ({"offsets": [0, 4, 3, 5]}, "offsets must start at 0 and never fall"),
        ({"offsets": []}, "offsets must start at 0"),
        ({"labels": [0, 1]}, "Detections.labels has 2 rows, but the offsets end at 5"),
        ({"evidence": np.zeros((4, 3))}, "Detections.evidence has 4 rows, but the offsets end at 5"),
        ({"features": np.zeros(5)}, r"Detections.features has 1 dimensions: shape \(5,\)"),
        ({"scores": np.zeros((5, 1))}, r"Detections.scores has 2 dimensions: shape \(5, 1\)"),
    ],
)
def test_columns_that_do_not_fit(found, change, message):
    columns = {"offsets": found.offsets, **found.columns(), **change}
    with pytest.raises(StrategyError, match=message):
        Detections(**columns)
