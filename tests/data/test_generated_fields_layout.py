# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tral_monai.data.generated.fields_layout import (
    KINDS,
    ZONES,
    FieldPlan,
    draw_kinds,
    fibre_angle,
    plan_field,
    zone_index,
)
from tral_monai.data.generated.fields_nuclei import CLASSES
from tral_monai.data.generated.grid import CELL_PX

NAMES = list(CLASSES)
SIZE_PX = 512


def _plan(kind: str, seed: int = 0) -> FieldPlan:
    return plan_field(np.random.default_rng(seed), kind, size_px=SIZE_PX, mpp=0.25)


def _shares(kind: str, seeds: int = 6) -> dict[str, float]:
    found: Counter[str] = Counter()
    for seed in range(seeds):
        found.update(NAMES[i] for i in _plan(kind, seed).nuclei.class_index)
    return {name: found[name] / found.total() for name in NAMES}


def test_kinds_come_in_the_proportions_of_their_weights():
    kinds = draw_kinds(np.random.default_rng(0), 50)
    total = sum(kind.weight for kind in KINDS.values())
    counted = Counter(kinds)
    assert len(kinds) == 50
    for name, kind in KINDS.items():
        assert abs(counted[name] - 50 * kind.weight / total) < 1
    assert kinds != sorted(kinds)


@pytest.mark.parametrize(
    ("kind", "class_name", "least"),
    [
        ("solid tumour", "tumor", 0.6),
        ("lymphoid aggregate", "lymphocyte", 0.55),
        ("plasma cells", "plasma", 0.35),
        ("histiocytes", "macrophage", 0.3),
        ("abscess", "other", 0.35),
        ("stroma", "stromal", 0.5),
    ],
)
def test_each_kind_is_rich_in_its_class(kind: str, class_name: str, least: float):
    shares = _shares(kind)
    assert max(shares, key=lambda name: shares[name]) == class_name
    assert shares[class_name] > least


def test_mitoses_follow_proliferation():
    assert _shares("proliferating tumour")["mitotic"] > 2 * _shares("solid tumour")["mitotic"] > 0


def test_sparse_fields_are_sparse():
    counts = {kind: np.mean([len(_plan(kind, seed).nuclei.x_px) for seed in range(5)]) for kind in KINDS}
    assert min(counts, key=lambda kind: counts[kind]) == "sparse"
    assert counts["lymphoid aggregate"] > 2.5 * counts["sparse"]


def test_zones_divide_the_field():
    plan = _plan("invasive front")
    distances = np.stack([plan.fields[f"{name}_cells"] for name in ZONES])
    assert ((distances > 0).sum(axis=0) == 1).all()
    index = zone_index(plan.fields)
    assert (np.take_along_axis(distances, index[None], axis=0) > 0).all()


def test_tumour_nuclei_lie_in_the_tumour_and_none_in_a_lumen():
    found = 0
    for seed in range(8):
        plan = _plan("solid tumour", seed)
        row, column = (np.clip(axis // CELL_PX, 0, 31) for axis in (plan.nuclei.y_px, plan.nuclei.x_px))
        tumour = plan.nuclei.class_index == NAMES.index("tumor")
        assert (plan.fields["tumour_cells"][row, column][tumour] > 0).all()
        assert (plan.fields["lumen_cells"][row, column] < 0).all()
        found += bool((plan.fields["lumen_cells"] > 0).any())
    assert found > 0


def test_cells_do_not_lie_on_top_of_each_other():
    nuclei = _plan("lymphoid aggregate").nuclei
    points = np.stack([nuclei.x_px, nuclei.y_px], axis=1)
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    assert nearest.min() * 0.25 >= 0.84 * 2 * 2.8 - 1e-9  # um between two lymphocytes


def test_stromal_nuclei_follow_the_fibres():
    plan = _plan("stroma")
    stromal = plan.nuclei.class_index == NAMES.index("stromal")
    row, column = (np.clip(axis[stromal] // CELL_PX, 0, 31) for axis in (plan.nuclei.y_px, plan.nuclei.x_px))
    off = plan.nuclei.angle[stromal] - plan.fibre_angle[row, column]
    assert np.abs(np.angle(np.exp(2j * off)) / 2).mean() < 0.25


def test_straight_fibres_have_the_angle_of_their_lay():
    plan = _plan("stroma", 3)
    straight = {name: np.zeros_like(field) for name, field in plan.fields.items()}
    angle = fibre_angle(straight, 0.6, cell_um=4.0)
    assert np.allclose(np.exp(2j * angle), np.exp(2j * 0.6), atol=1e-5)


def test_same_seed_same_plan():
    first, again, other = (_plan("tumour nests", seed) for seed in (5, 5, 6))
    assert all(np.array_equal(first.fields[name], again.fields[name]) for name in first.fields)
    assert np.array_equal(first.nuclei.x_px, again.nuclei.x_px)
    assert np.array_equal(first.nuclei.angle, again.nuclei.angle)
    assert not np.array_equal(first.fields["tumour_cells"], other.fields["tumour_cells"])
