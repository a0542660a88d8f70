# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.outlines import region_outlines


def test_a_ring_and_its_island_by_hand() -> None:
    labels = np.array([[2, 2, 2, 0], [2, 1, 2, 0], [2, 2, 2, 3]], dtype=np.int32)
    outlines = region_outlines(labels, MapGrid(dimensions=(35, 30), step_level0=10.0))
    assert outlines.first_ring.tolist() == [0, 1, 3, 4]  # region 2 has two rings
    assert outlines.area_px.tolist() == [100, 800, 50]
    corners = list(zip(outlines.x.tolist(), outlines.y.tolist(), strict=True))
    rings = [corners[a:b] for a, b in zip(outlines.first_corner[:-1], outlines.first_corner[1:], strict=True)]
    assert [len(ring) for ring in rings] == [4, 4, 4, 4]
    island, outer, hole, last = (set(ring) for ring in rings)
    assert island == hole == {(10, 10), (20, 10), (20, 20), (10, 20)}  # the border is shared exactly
    assert outer == {(0, 0), (30, 0), (30, 30), (0, 30)}
    assert last == {(30, 20), (35, 20), (35, 30), (30, 30)}  # the last column ends at the slide's border


def test_no_region_has_no_ring() -> None:
    outlines = region_outlines(np.zeros((2, 2), dtype=np.int32), MapGrid(dimensions=(20, 20), step_level0=10.0))
    assert (outlines.x.size, outlines.first_corner.tolist(), outlines.first_ring.tolist()) == (0, [0], [0])
    assert outlines.area_px.size == 0


def test_an_area_beyond_32_bits_is_exact() -> None:
    outlines = region_outlines(np.ones((3, 3), dtype=np.int32), MapGrid(dimensions=(299_998, 299_999), step_level0=1e5))
    assert outlines.area_px.tolist() == [299_998 * 299_999]


def test_labels_and_grid_must_fit() -> None:
    with pytest.raises(ValueError, match="class map has shape .2, 2., but its grid has shape .2, 3."):
        region_outlines(np.ones((2, 2), dtype=np.int32), MapGrid(dimensions=(25, 14), step_level0=10.0))
