# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.inference.map_classes import MapClasses
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.tissue_map import TissueMap

NAN = np.nan


def test_counts_and_areas_by_hand() -> None:
    # 250 x 200 px in cells of 100 px: the last column is 50 px wide. 10 um per pixel: a whole cell is 1 mm2.
    classes = MapClasses(["Stroma", "Muscle"])
    tissue = TissueMap(
        class_index=np.array([[0, 1, 2], [1, 3, 4]], dtype=np.uint8),
        confidence=np.array([[NAN, 0.9, 0.8], [0.7, 0.5, NAN]], dtype=np.float16),
        probabilities=None,
        classes=classes,
        grid=MapGrid(dimensions=(250, 200), step_level0=100.0),
        mpp_xy=(10.0, 10.0),
        failed_centres_level0=np.array([[250, 150]]),
    )
    assert tissue.tile_counts() == {"Background": 1, "Stroma": 2, "Muscle": 1, "Undefined": 1, "Not analysed": 1}
    assert tissue.areas_mm2() == pytest.approx(
        {"Background": 1.0, "Stroma": 2.0, "Muscle": 0.5, "Undefined": 1.0, "Not analysed": 0.5}
    )
    assert tissue.tissue_mm2() == pytest.approx(4.0)
    assert tissue.tissue_tiles == 5
