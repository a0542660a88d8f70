# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tral_monai.data.generated.cells import Stamps, jittered_grid, place_cells
from tral_monai.data.generated.grid import CELL_PX, Frame
from tral_monai.data.generated.layout import Plan, Tissue, plan_slide
from tral_monai.data.generated.nuclei import ORIENTATIONS, SHAPES


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_slide(np.random.default_rng(3), width_px=3600, height_px=3600, mpp=0.25)


@pytest.fixture(scope="module")
def stamps(plan: Plan) -> dict[str, Stamps]:
    return place_cells(np.random.default_rng(0), plan, size_factor=1.0)


def test_jittered_grid_is_dense_and_never_on_top_of_itself():
    x, y = jittered_grid(np.random.default_rng(0), width_px=800, height_px=600, spacing_px=30)
    assert x.min() >= 0
    assert y.min() >= 0
    assert x.max() < 800
    assert y.max() < 600
    assert abs(len(x) / (800 * 600 / (30 * 30 * 0.866)) - 1) < 0.1
    nearest = cKDTree(np.stack([x, y], 1)).query(np.stack([x, y], 1), k=2)[0][:, 1]
    assert nearest.min() > 30 * (1 - 2 * 0.28 * np.sqrt(2)) - 2


def test_red_cells_lie_in_blood_and_muscle_fibres_in_muscle(plan: Plan, stamps: dict[str, Stamps]):
    for name, tissue in (("red_cell", Tissue.BLOOD), ("fibre_across", Tissue.MUSCLE)):
        cells = plan.tissue[stamps[name].y_px // CELL_PX, stamps[name].x_px // CELL_PX]
        assert len(cells) > 50
        assert (cells == tissue).all()


def test_cells_like_urothelium_also_lie_in_inflamed_stroma(plan: Plan, stamps: dict[str, Stamps]):
    cell = stamps["urothelial"].y_px // CELL_PX, stamps["urothelial"].x_px // CELL_PX
    tissue, inflamed = plan.tissue[cell], plan.fields["inflamed"][cell]
    assert set(np.unique(tissue)) == {Tissue.STROMA, Tissue.UROTHELIUM}
    assert (inflamed[tissue == Tissue.STROMA] > 0.4).all()


def test_muscle_nuclei_lie_along_their_bundle(plan: Plan, stamps: dict[str, Stamps]):
    cigars = stamps["cigar"]
    cell = cigars.y_px // CELL_PX, cigars.x_px // CELL_PX
    drawn = cigars.patch // SHAPES["cigar"].variants * np.pi / ORIENTATIONS
    off = np.abs((drawn - plan.fascicle_angle[cell] + np.pi / 2) % np.pi - np.pi / 2)
    assert off[plan.tissue[cell] == Tissue.MUSCLE].max() < 0.10 + np.pi / ORIENTATIONS


def test_smaller_nuclei_are_packed_closer(plan: Plan, stamps: dict[str, Stamps]):
    small = place_cells(np.random.default_rng(0), plan, size_factor=0.8)
    ratio = len(small["urothelial"].x_px) / len(stamps["urothelial"].x_px)
    assert 1.4 < ratio < 1.7  # 1 / 0.8 ** 2 = 1.56


def test_near_and_joined():
    ones = np.ones(3, np.int64)
    first = Stamps(np.array([5, 50, 500]), np.array([5, 50, 500]), ones)
    assert first.near(Frame(0, 0, 45, 45), reach_px=4).tolist() == [0]
    assert first.near(Frame(0, 0, 45, 45), reach_px=6).tolist() == [0, 1]
    both = first.joined(Stamps(np.array([7]), np.array([8]), np.array([9])))
    assert both.x_px.tolist() == [5, 50, 500, 7]
    assert both.y_px.tolist() == [5, 50, 500, 8]
    assert both.patch.tolist() == [1, 1, 1, 9]
