# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.slide_window import SlideWindow


def test_the_maximum_is_exclusive_and_a_border_is_not() -> None:
    inner = SlideWindow((10, 20, 30, 40), (100, 100))
    points = np.array([[10, 20], [39, 59], [40, 59], [39, 60], [9, 20]])
    assert inner.holds(points).tolist() == [True, True, False, False, False]
    corner = SlideWindow((60, 60, 40, 40), (100, 100))
    assert corner.bounds_level0 == (60, 60, math.inf, math.inf)
    assert corner.holds(np.array([[120, 60], [60, 59]])).tolist() == [True, False]
    assert SlideWindow((-5, 0, 50, 50), (100, 100)).bounds_level0 == (-math.inf, -math.inf, 45, 50)


def test_no_rectangle_is_the_whole_slide() -> None:
    window = SlideWindow(None, (100, 100))
    near, shared = window.overlaps(np.array([[0.0, 0, 10, 20], [90, 90, 120, 100]]))
    assert near.tolist() == [True, True]
    assert shared.tolist() == [200, 300]


def test_boxes_near_it_and_what_they_share_with_it() -> None:
    window = SlideWindow((10, 10, 20, 20), (100, 100))
    boxes = np.array([[0.0, 0, 15, 15], [32, 10, 40, 20], [36, 10, 40, 20], [30, 10, 40, 20]])
    near, shared = window.overlaps(boxes, margin_level0=5)
    assert near.tolist() == [True, True, False, True]
    assert shared.tolist() == [25, 0, 0, 0]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 0, 10), "a region must be at least 1 x 1 px, but is 0 x 10"),
        ((100, 0, 10, 10), r"at \(100, 0\) lies outside of the slide, which has 100 x 80 px"),
        ((0, 80, 10, 10), r"at \(0, 80\) lies outside of the slide"),
        ((-10, 0, 10, 10), r"at \(-10, 0\) lies outside of the slide"),
    ],
)
def test_a_region_without_anything_in_it_is_refused(region: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SlideWindow(region, (100, 80))
