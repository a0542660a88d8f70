# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.data.generated.layout import CLASSES, Damage, Plan, Tissue, plan_slide


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_slide(np.random.default_rng(3), width_px=4000, height_px=3600, mpp=0.25)


def test_grid_of_cells_covers_the_slide(plan: Plan):
    assert plan.tissue.shape == (225, 250)  # 3600 / 16, 4000 / 16
    assert plan.cell_um == 4.0
    assert all(field.shape == plan.tissue.shape for field in plan.fields.values())


def test_every_cell_of_tissue_has_exactly_one_class(plan: Plan):
    counts = sum(plan.class_mask(name).astype(int) for name in CLASSES)
    assert np.array_equal(counts, (plan.tissue != Tissue.GLASS).astype(int))


def test_damage_lies_on_tissue_and_goes_before_it(plan: Plan):
    assert not ((plan.damage != Damage.NONE) & (plan.tissue == Tissue.GLASS)).any()
    assert set(np.unique(plan.damage)) == {0, 1, 2, 3}
    assert (plan.class_mask("Damaged") & (plan.tissue == Tissue.MUSCLE)).any()
    assert not (plan.class_mask("Muscle") & (plan.damage != Damage.NONE)).any()


def test_layers_lie_in_anatomical_order(plan: Plan):
    rows, columns = np.indices(plan.tissue.shape)
    depth = columns * np.cos(plan.depth_angle) + rows * np.sin(plan.depth_angle)
    urothelium, muscle = (depth[plan.tissue == tissue].mean() for tissue in (Tissue.UROTHELIUM, Tissue.MUSCLE))
    assert urothelium < depth[plan.tissue == Tissue.STROMA].mean() < muscle


def test_burnt_tissue_lies_at_the_edge_and_scar_does_not(plan: Plan):
    edge_um = plan.fields["piece_um"]
    assert np.median(edge_um[plan.damage == Damage.CAUTERY]) < 80
    scar = plan.fields["hyaline_cells"] > 0.5
    assert scar.any()
    assert edge_um[scar].min() > 80


def test_blood_is_rare_and_urothelium_is_not():
    shares = np.zeros(2)
    for seed in range(6):
        plan = plan_slide(np.random.default_rng(seed), width_px=4000, height_px=4000, mpp=0.25)
        shares += [plan.class_mask(name).mean() for name in ("Blood", "Urothelium")]
    assert 0 < shares[0] < 0.5 * shares[1]


def test_same_seed_same_plan():
    first, again, other = (
        plan_slide(np.random.default_rng(seed), width_px=1600, height_px=1600, mpp=0.23) for seed in (5, 5, 6)
    )
    assert np.array_equal(first.tissue, again.tissue)
    assert all(np.array_equal(first.fields[name], again.fields[name]) for name in first.fields)
    assert not np.array_equal(first.tissue, other.tissue)
