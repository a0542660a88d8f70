# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest
from ignite.engine import Engine
from ignite.exceptions import NotComputableError

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.open_set import OpenSet
from tral_monai.errors import ConfigError
from tral_monai.metrics.detection import detection_metrics, truth_of
from tral_monai.metrics.ignite_detection import DetectionAp

OPEN_SET = OpenSet(("lymphocyte", "tumour"), ("fat",))


def boxes(*lefts):
    return np.array([[left, 0, left + 10, 10] for left in lefts], np.float32).reshape(-1, 4)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "id": [7, 3, 5],
            "boxes_px": [boxes(0, 20), boxes(0), boxes()],
            "classes": [("tumour", "fat"), ("lymphocyte",), ()],
        }
    )


def found(*images):
    """Images of (left, label, score)."""
    rows = [row for image in images for row in image]
    return Detections(
        offsets=np.concatenate([[0], np.cumsum([len(image) for image in images])]),
        boxes_px=boxes(*(row[0] for row in rows)),
        labels=np.array([row[1] for row in rows], np.int64),
        scores=np.array([row[2] for row in rows]),
        logits=np.zeros((len(rows), 2)),
    )


BATCHES = [(found([(40, 0, 0.9)], [(0, 1, 0.8), (20, 1, 0.7)]), [5, 7]), (found([(1, 0, 0.6)]), [3])]


def test_it_is_the_metric_over_all_batches_whatever_their_order(table):
    expected = detection_metrics(
        found([(0, 1, 0.8), (20, 1, 0.7)], [(1, 0, 0.6)], [(40, 0, 0.9)]), *truth_of(table, OPEN_SET), OPEN_SET.known
    )
    assert expected["map50"] == pytest.approx(0.75)  # one invention comes before the one right lymphocyte
    engine = Engine(lambda _, batch: {"pred": batch[0], "label": [{"id": number} for number in batch[1]]})
    DetectionAp(table, OPEN_SET).attach(engine, "map50")
    for batches in (BATCHES, BATCHES[::-1], [*BATCHES, BATCHES[0]]):  # samplers may show a field twice
        metrics = engine.run(batches).metrics
        assert metrics == pytest.approx(expected)


def test_nothing_came(table):
    with pytest.raises(NotComputableError, match="needs at least one field of view"):
        DetectionAp(table, OPEN_SET).compute()


def test_batches_that_do_not_fit(table):
    metric = DetectionAp(table, OPEN_SET)
    with pytest.raises(ConfigError, match="Expected one target per image, but got 1 for 2 images"):
        metric.update((BATCHES[0][0], [{"id": 5}]))
    with pytest.raises(ConfigError, match="Field of view 8 is not in the table"):
        metric.update((BATCHES[1][0], [{"id": 8}]))
