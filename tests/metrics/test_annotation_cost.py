# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest

from tral_monai.errors import ConfigError
from tral_monai.metrics.annotation_cost import AnnotationTime, areas_under_learning_curve


def test_minutes_of_images():
    time = AnnotationTime(seconds_per_image=30, seconds_per_box=6, seconds_per_class=3)
    # 30 + 10 * 6 + 4 * 3 = 102 s; an image without a nucleus must still be looked at.
    assert time.minutes([10, 0], [4, 0]).tolist() == pytest.approx([1.7, 0.5])


def test_time_may_be_for_boxes_alone():
    time = AnnotationTime(seconds_per_image=0, seconds_per_class=0)
    assert time.minutes(np.array([60]), np.array([60])).tolist() == [7.0]


@pytest.mark.parametrize("name", ["seconds_per_image", "seconds_per_box", "seconds_per_class"])
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_time_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be 0 or more, but is {value}"):
        AnnotationTime(**{name: value})


def test_areas_on_three_axes():
    summary = pd.DataFrame(
        {"images": [1, 2, 3], "boxes_drawn": [10, 40, 50], "minutes": [1.0, 2.0, 4.0], "map50": [0.0, 0.5, 1.0]}
    )
    areas = areas_under_learning_curve(summary, summary["map50"])
    # images: (0.25 + 0.75) / 2; boxes: (30 * 0.25 + 10 * 0.75) / 40; minutes: (0.25 + 2 * 0.75) / 3
    assert areas == pytest.approx({"images": 0.5, "boxes_drawn": 0.375, "minutes": 1.75 / 3})
    shared = areas_under_learning_curve(summary, summary["map50"], cost_ranges={"boxes_drawn": (40, 50)})
    assert shared == pytest.approx({"images": 0.5, "boxes_drawn": 0.75, "minutes": 1.75 / 3})


def test_an_axis_is_missing():
    with pytest.raises(ConfigError, match="needs the cost axes .*, but \\['minutes'\\] are missing"):
        areas_under_learning_curve({"images": [1, 2], "boxes_drawn": [1, 2]}, [0, 1])
