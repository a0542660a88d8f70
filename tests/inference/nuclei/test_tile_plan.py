# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.nuclei.tile_plan import TilePlan


def test_tiles_are_spread_evenly_and_cores_meet_in_the_middle_of_what_they_share() -> None:
    plan = TilePlan((1000, 256), tile_px=256, overlap_px=64)
    # 5 tiles are the fewest that reach 1000 px with steps of at most 192: 744 / 4 = 186.
    assert plan.x_starts_px.tolist() == [0, 186, 372, 558, 744]
    assert plan.x_edges_px.tolist() == [0, 221, 407, 593, 779, 1000]
    assert plan.y_starts_px.tolist() == [0]
    assert plan.y_edges_px.tolist() == [0, 256]
    assert plan.shape == (1, 5)
    assert plan.starts_px(np.array([3])).tolist() == [[558, 0]]
    assert plan.cores_px(np.array([0, 3])).tolist() == [[0, 0, 221, 256], [593, 0, 779, 256]]


def test_an_image_smaller_than_a_tile_has_one_of_its_own_size() -> None:
    plan = TilePlan((200, 90), tile_px=256, overlap_px=64)
    assert plan.shape == (1, 1)
    assert plan.tile_size_px == (200, 90)
    assert plan.cores_px(np.array([0])).tolist() == [[0, 0, 200, 90]]


@pytest.mark.parametrize("seed", range(20))
def test_tiles_stay_inside_overlap_enough_and_cores_divide_the_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tile = int(rng.integers(64, 600))
    overlap = int(rng.integers(0, tile // 2 + 1))
    plan = TilePlan((int(rng.integers(1, 5000)), int(rng.integers(1, 5000))), tile_px=tile, overlap_px=overlap)
    for starts, edges, extent in (
        (plan.x_starts_px, plan.x_edges_px, plan.size_px[0]),
        (plan.y_starts_px, plan.y_edges_px, plan.size_px[1]),
    ):
        ends = starts + min(tile, extent)
        assert starts[0] == 0
        assert ends[-1] == extent
        assert (ends[:-1] - starts[1:] >= overlap).all()
        assert edges[0] == 0
        assert edges[-1] == extent
        assert (np.diff(edges) > 0).all()
        # A core lies inside of its tile, half of the overlap away from an edge with a neighbour.
        assert (edges[1:-1] <= ends[:-1] - overlap / 2).all()
        assert (edges[1:-1] >= starts[1:] + overlap / 2).all()
    assert plan.core_areas_px().sum() == plan.size_px[0] * plan.size_px[1]


def test_a_mask_is_divided_among_cores() -> None:
    plan = TilePlan((300, 100), tile_px=200, overlap_px=100)  # two tiles, at 0 and 100: cores meet at 150
    mask = np.zeros((4, 12), dtype=bool)  # pixels of 25 px
    mask[1, 4:8] = True  # 100 to 200 px: two pixels on each side of 150
    mask[3, 0] = True
    assert plan.mask_area_px(mask, 25.0).tolist() == [[3 * 625, 2 * 625]]


def test_a_mask_never_has_more_area_than_the_core() -> None:
    plan = TilePlan((90, 90), tile_px=200, overlap_px=0)
    assert plan.mask_area_px(np.ones((4, 4), dtype=bool), 25.0).tolist() == [[90 * 90]]  # 4 x 25 is 100


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"an image with an area, but its size is \(0, 5\)"):
        TilePlan((0, 5), 256, 64)
    with pytest.raises(ConfigError, match=r"overlap_px must lie between 0 and half of tile_px \(256\), but is 129"):
        TilePlan((100, 100), 256, 129)
    with pytest.raises(ConfigError, match="overlap_px must lie between 0 and half"):
        TilePlan((100, 100), 256, -1)
