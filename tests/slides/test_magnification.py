# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.slides.magnification import (
    Resolution,
    level0_per_tile,
    level_downsamples,
    magnification_to_mpp,
    mpp_to_magnification,
    resolve,
)


def test_forty_times_is_a_quarter_micrometre():
    assert [magnification_to_mpp(m) for m in (40.0, 10.0, 2.5)] == [0.25, 1.0, 4.0]
    assert mpp_to_magnification(0.5) == 20.0


@pytest.mark.parametrize("magnification", [0, -40, float("nan"), float("inf")])
def test_magnification_must_be_positive(magnification):
    with pytest.raises(ConfigError, match="positive number"):
        magnification_to_mpp(magnification)


@pytest.mark.parametrize(("mpp", "expected"), [(0.25, 128), (0.5, 64), (0.125, 256)])
def test_grid_step_of_tiles_that_touch(mpp, expected):
    assert level0_per_tile(mpp) == expected


def test_grid_step_at_low_magnification():
    assert level0_per_tile(0.25, 2.5) == 2048
    assert level0_per_tile(0.25, 40.0, 256) == 256


@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [
        ([(9984, 16128), (4992, 8064), (2496, 4032), (1248, 2016), (624, 1008)], (1, 2, 4, 8, 16)),
        ([(4443, 3567), (2221, 1783)], (1, 2)),  # both sides rounded down: the mean ratio is 2.0005
        ([(4443, 3567), (2222, 1784)], (1, 2)),  # both rounded up
        ([(1001, 999), (63, 62)], (1, 16)),  # up and down
    ],
)
def test_downsample_is_the_integer_that_the_rounding_hides(dimensions, expected):
    assert level_downsamples(dimensions) == expected


def test_downsample_that_is_no_integer_stays():
    assert level_downsamples([(1000, 1000), (400, 400)]) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (1.0, Resolution(0, 1.0, 1.0)),
        (4.0, Resolution(1, 1.0, 4.0)),
        (16.0, Resolution(2, 1.0, 16.0)),
        (4.03, Resolution(1, 1.0, 4.0)),  # 0.7 % off: the level as it is
        (3.97, Resolution(1, 1.0, 4.0)),
        (4.2, Resolution(1, 1.05, 4.2)),  # 5 % off: from the next finer level
        (3.8, Resolution(0, 3.8, 3.8)),
        (0.5, Resolution(0, 0.5, 0.5)),  # more than the scan has: enlarged
        (64.0, Resolution(2, 4.0, 64.0)),
    ],
)
def test_resolve(asked, expected):
    found = resolve((1.0, 4.0, 16.0), asked)
    assert (found.level, found.downsample) == (expected.level, expected.downsample)
    assert found.ratio == pytest.approx(expected.ratio, rel=1e-12)


@pytest.mark.parametrize("asked", [0.0, -1.0, float("nan")])
def test_resolve_wants_a_positive_number(asked):
    with pytest.raises(ConfigError, match="positive number of level-0 pixels"):
        resolve((1.0,), asked)
