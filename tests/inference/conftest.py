# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import numpy as np
import pytest

from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.tissue_map import TissueMap


@pytest.fixture
def small_map() -> TissueMap:
    """3 x 4 tiles of 100 px, 1 um per pixel (0.01 mm2 per tile), the last column 50 px wide.

    Background B, Stroma S, Muscle M, Undefined U, Not analysed N::

        B S S B
        S M S N
        S S S U
    """
    classes = MapClasses(["Stroma", "Muscle"])
    nan = np.nan
    return TissueMap(
        class_index=np.array([[0, 1, 1, 0], [1, 2, 1, 4], [1, 1, 1, 3]], dtype=np.uint8),
        confidence=np.array([[nan, 0.75, 1.0, nan], [0.75, 0.5, 1.0, nan], [0.75, 1.0, 0.75, 0.25]], dtype=np.float16),
        probabilities=None,
        classes=classes,
        grid=MapGrid(dimensions=(350, 300), step_level0=100.0),
        mpp_xy=(1.0, 1.0),
        failed_centres_level0=np.array([[350, 150]]),
        failures=("region (300, 100) cannot be decoded",),
        seconds={"mask": 0.5, "model": 2.0, "wait_for_pixels": 0.25, "total": 3.0},
    )


@pytest.fixture
def without_log(caplog: pytest.LogCaptureFixture) -> None:
    """The comparison's log as plain Python has it, whatever a bundle's run in an earlier test has set up."""
    caplog.set_level(logging.WARNING, "tral_monai.inference.agreement_check")
