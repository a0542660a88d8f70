# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.inference.nuclei.nucleus_map import NucleusMap


@pytest.fixture
def three_nuclei() -> NucleusMap:
    """Three nuclei on 0.02 mm2: two tumour, one lymphocyte; of the last one no distance is known. 0.5 um per pixel."""
    nan = np.nan
    return NucleusMap(
        boxes_level0=np.array([[10, 20, 30, 50], [100.25, 60, 120.75, 80], [0, 0, 8, 8]], dtype=np.float32),
        labels=np.array([0, 1, 0]),
        score=np.array([0.9, 0.75, 0.5], dtype=np.float32),
        uncertainty=np.array([0.25, 0.5, 1.0], dtype=np.float32),
        distance_known=np.array([1.5, 3.0, nan], dtype=np.float32),
        distance_unknown=np.array([4.0, 2.0, nan], dtype=np.float32),
        classes=("tumour", "lymphocyte", "stroma"),
        colours={"tumour": (200, 0, 0), "lymphocyte": (0, 90, 200), "stroma": (10, 20, 30)},
        dimensions=(200, 100),
        mpp_xy=(0.5, 0.5),
        analysed_mm2=0.02,
        tiles=1,
        failures=(),
        seconds={"total": 0.5},
    )
