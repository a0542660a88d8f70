# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.metrics.annotation_cost import AnnotationCost, annotation_minutes


def test_scattered_tiles_by_hand() -> None:
    # 60 tiles, each a region of its own: 60 * (10 + 2) s = 12 min; two slides more: 1 min.
    assert annotation_minutes(60) == 12.0
    assert annotation_minutes(60, slides=2) == 13.0


def test_a_class_request_needs_fewer_regions() -> None:
    # 3 regions that give 60 tiles: 30 s + 120 s.
    assert annotation_minutes(60, regions=3) == 2.5


def test_own_times() -> None:
    cost = AnnotationCost(seconds_per_slide=60, seconds_per_region=0, seconds_per_tile=6)
    assert annotation_minutes(10, slides=1, cost=cost) == 2.0


def test_range() -> None:
    assert AnnotationCost().range(60) == (6.0, 24.0)
    assert AnnotationCost().range(60, factor=1) == (12.0, 12.0)


def test_nothing_costs_nothing() -> None:
    assert annotation_minutes(0) == 0.0


@pytest.mark.parametrize("name", ["seconds_per_slide", "seconds_per_region", "seconds_per_tile"])
@pytest.mark.parametrize("value", [-1, float("nan"), "2"])
def test_bad_times(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a finite number of seconds"):
        AnnotationCost(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [{"tiles": -1}, {"tiles": 2, "regions": 3}, {"tiles": 2, "slides": -1}])
def test_bad_counts(counts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="no more regions than tiles"):
        AnnotationCost().minutes(**counts)


def test_bad_factor() -> None:
    with pytest.raises(ConfigError, match=r"factor must be at least 1, but is 0\.5"):
        AnnotationCost().range(1, factor=0.5)
