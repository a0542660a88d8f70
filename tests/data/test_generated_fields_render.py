# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tral_monai.data.generated.fields_layout import FieldPlan, Nuclei, plan_field
from tral_monai.data.generated.fields_render import RenderedField, cell_territories, lay_over, render_field, visible_box
from tral_monai.data.generated.hospitals import HOSPITAL_A, HOSPITAL_B, Hospital
from tral_monai.data.generated.render import Patient

SIZE_PX = 256
PATIENT = Patient(hematoxylin=1.0, eosin=1.0, nuclei=1.0)


def _plan(kind: str, seed: int = 0) -> FieldPlan:
    return plan_field(np.random.default_rng(seed), kind, size_px=SIZE_PX, mpp=0.25)


def _render(plan: FieldPlan, hospital: Hospital = HOSPITAL_A, seed: int = 0) -> RenderedField:
    return render_field(np.random.default_rng(seed), plan, hospital, PATIENT, seed=0)


def test_visible_box_by_hand():
    mask = np.zeros((7, 7), bool)
    mask[1:6, 0:6] = True  # 30 pixels, 6 wide and 5 high, its centre at (3, 3)
    assert visible_box(mask, 10, 20, 40) == ((7, 18, 13, 23), 30)
    assert visible_box(mask, 1, 20, 40) == ((0, 18, 4, 23), 20)  # two of six columns are cut
    assert visible_box(mask, 0, 20, 40) is None  # three columns are left: too narrow
    assert visible_box(mask, 10, 37, 40) == ((7, 35, 13, 40), 30)  # touches the lower edge
    assert visible_box(mask, 10, 39, 40) is None  # three rows are left: too low
    assert visible_box(mask, -30, 20, 40) is None
    assert visible_box(np.zeros((7, 7), bool), 10, 20, 40) is None


def test_too_little_of_a_nucleus_is_not_annotated():
    mask = np.ones((21, 21), bool)
    assert visible_box(mask, -4, 50, 100) == ((0, 40, 7, 61), 147)  # 7 of 21 columns: a third
    assert visible_box(mask, -5, 50, 100) is None  # 6 of 21: less than 30 %


def test_lay_over_by_hand():
    canvas = np.full((3, 3), 2, np.float32)
    patch = np.full((3, 3), 4, np.float32)
    opacity = np.array([[0, 0, 0], [0, 1, 0.5], [0, 0.25, 0]], np.float32)
    lay_over(canvas, patch, opacity, 2, 1)
    assert canvas.tolist() == [[2, 2, 2], [2, 2, 4], [2, 2, 2.5]]
    lay_over(canvas, patch, np.ones((3, 3), np.float32), 9, 1)
    assert canvas[1].tolist() == [2, 2, 4]


def test_territories_meet_halfway():
    tone, membrane = cell_territories(np.array([20, 60]), np.array([40, 40]), 81, 0.25)
    assert membrane.max() == 1
    assert (np.abs(membrane.argmax(axis=1) - 40.5) <= 1).all()
    assert membrane[:, :30].max() < 1e-3
    assert np.ptp(tone[:, :30]) < 1e-4
    assert abs(tone[40, 20] - tone[40, 60]) > 0.01
    empty = cell_territories(np.empty(0, np.int64), np.empty(0, np.int64), 16, 0.25)
    assert not empty[0].any()
    assert not empty[1].any()


def test_a_field_without_nuclei_is_drawn():
    nothing = np.empty(0, np.int64)
    plan = replace(_plan("solid tumour"), nuclei=Nuclei(nothing, nothing, nothing, np.empty(0, np.float32)))
    field = _render(plan)
    assert field.image.shape == (SIZE_PX, SIZE_PX, 3)
    assert field.boxes_px.shape == (0, 4)
    assert field.class_names == ()


def test_one_nucleus_is_drawn_where_its_box_lies():
    one = Nuclei(np.array([100]), np.array([60]), np.array([1]), np.zeros(1, np.float32))  # a lymphocyte
    with_, without = (
        _render(replace(_plan("stroma"), nuclei=nuclei)).image.astype(int)
        for nuclei in (one, replace(one, x_px=np.array([-999])))
    )
    field = _render(replace(_plan("stroma"), nuclei=one))
    assert field.class_names == ("lymphocyte",)
    left, top, right, bottom = field.boxes_px[0]
    assert left < 100 < right
    assert top < 60 < bottom
    assert 18 <= right - left <= 32  # 5.9 um and more at 0.25
    assert field.areas_px[0] == pytest.approx(np.pi / 4 * (right - left) * (bottom - top), rel=0.2)
    darker = (without - with_).max(axis=2) > 40
    columns = np.nonzero(darker)[1]
    assert columns.min() >= left - 4
    assert columns.max() <= right + 4
    assert darker[top:bottom, left:right].mean() > 0.5


def test_colours_are_those_of_hematoxylin_and_eosin():
    field = _render(_plan("stroma"))
    nuclei = np.zeros((SIZE_PX, SIZE_PX), bool)
    for left, top, right, bottom in field.boxes_px:
        middle = (
            slice((top + bottom) // 2 - 2, (top + bottom) // 2 + 2),
            slice((left + right) // 2 - 2, (left + right) // 2 + 2),
        )
        nuclei[middle] = True
    inside, outside = field.image[nuclei].mean(axis=0), np.median(field.image[~nuclei], axis=0)
    assert inside[2] > inside[1]  # purple: blue over green
    assert outside[0] > outside[1] + 20  # pink: red over green
    assert outside[0] > inside[0] + 40


def test_lumina_and_fat_are_empty_glass():
    plan = _plan("sparse", 1)
    fat = np.kron(plan.fields["fat_cells"], np.ones((16, 16))) > 2
    assert fat.any()
    field = _render(plan)
    glass = np.array(HOSPITAL_A.glass)
    assert (np.abs(field.image[fat] - glass).max(axis=1) < 12).mean() > 0.7


def test_hospitals_differ_in_stain_and_same_seed_gives_same_pixels():
    plan = _plan("tumour nests")
    first, again, other = _render(plan), _render(plan), _render(plan, HOSPITAL_B)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes_px, other.boxes_px)
    means = [field.image.reshape(-1, 3).mean(axis=0) for field in (first, other)]
    assert means[1][2] - means[1][0] > means[0][2] - means[0][0] + 5
