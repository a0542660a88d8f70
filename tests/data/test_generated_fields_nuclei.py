# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from tral_monai.data.generated.fields_nuclei import CLASSES, Drawn, draw_cell

MPP = 0.25


def _cells(
    class_name: str, count: int = 60, *, angle: float = 0.0, mpp: float = MPP, factor: float = 1.0
) -> list[Drawn]:
    generator = np.random.default_rng(1)
    return [draw_cell(generator, class_name, angle=angle, mpp=mpp, seed=0, size_factor=factor) for _ in range(count)]


def _area_um2(cell: Drawn, mpp: float = MPP) -> float:
    return float((cell.cover > 0.5).sum()) * mpp**2


def _sides_um(cell: Drawn) -> tuple[float, float]:
    rows, columns = np.nonzero(cell.cover > 0.5)
    return (np.ptp(columns) + 1) * MPP, (np.ptp(rows) + 1) * MPP


def _amount(cell: Drawn) -> float:
    return float(cell.stain[cell.cover > 0.5].mean())


@pytest.mark.parametrize("class_name", CLASSES)
def test_patches_are_odd_squares_that_hold_the_whole_cell(class_name: str):
    for cell in _cells(class_name, 20, angle=0.7):
        size = cell.stain.shape[0]
        assert size % 2 == 1
        for patch in (cell.stain, cell.cover, cell.body, cell.body_eosin, cell.body_hematoxylin):
            assert patch.shape == (size, size)
            assert patch.dtype == np.float32
            assert np.isfinite(patch).all()
            assert patch.min() >= 0
        for opacity in (cell.cover, cell.body):
            assert opacity.max() <= 1
            border = np.concatenate([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]])
            assert border.max() <= 0.5
        assert (cell.cover > 0.5).sum() > 20


def test_sizes_are_those_of_the_classes_and_overlap():
    area = {name: np.array([_area_um2(cell) for cell in _cells(name)]) for name in CLASSES}
    # An ellipse of 5.9 x 5.4 um has 25 um2, one of 9.2 x 7.4 has 53, one of 12.8 x 3.1 has 31.
    assert np.median(area["lymphocyte"]) == pytest.approx(26, abs=4)
    assert np.median(area["tumor"]) == pytest.approx(53, abs=9)
    assert np.median(area["stromal"]) == pytest.approx(33, abs=8)
    for one, two in (("lymphocyte", "plasma"), ("tumor", "macrophage"), ("tumor", "mitotic"), ("plasma", "other")):
        low, high = np.quantile(area[one], 0.05), np.quantile(area[one], 0.95)
        assert ((area[two] > low) & (area[two] < high)).mean() > 0.1


def test_stromal_nuclei_lie_along_their_angle_and_lymphocytes_are_round():
    lying = np.array([_sides_um(cell) for cell in _cells("stromal", angle=0.0)])
    standing = np.array([_sides_um(cell) for cell in _cells("stromal", angle=np.pi / 2)])
    assert np.median(lying[:, 0] / lying[:, 1]) > 2
    assert np.median(standing[:, 1] / standing[:, 0]) > 2
    round_ = np.array([_sides_um(cell) for cell in _cells("lymphocyte")])
    assert 0.95 < np.median(round_[:, 0] / round_[:, 1]) < 1.25


def test_mitoses_are_darkest_and_some_tumour_nuclei_come_close():
    amount = {name: np.array([_amount(cell) for cell in _cells(name)]) for name in CLASSES}
    assert np.median(amount["mitotic"]) > 1.5 * np.median(amount["tumor"])
    assert amount["tumor"].max() > amount["mitotic"].min() - 0.05
    assert np.median(amount["macrophage"]) < np.median(amount["lymphocyte"]) - 0.2


def test_plasma_cells_have_an_eccentric_nucleus_and_lymphocytes_no_cytoplasm():
    assert not any(cell.body.any() for cell in _cells("lymphocyte", 10))
    offsets = []
    for cell in _cells("plasma"):
        half = cell.body.shape[0] // 2
        rows, columns = np.nonzero(cell.body > 0.3)
        offsets.append(np.hypot(columns.mean() - half, rows.mean() - half) * MPP)
    assert np.median(offsets) > 1.5


def test_granulocytes_have_several_lobes_or_bright_eosin():
    eosin = [float(cell.body_eosin[cell.body > 0.3].mean()) for cell in _cells("other")]
    assert min(eosin) < 0.3  # neutrophils
    assert max(eosin) > 0.5  # eosinophils, shrunken cells
    filled = [(cell.cover > 0.5).sum() * MPP**2 / np.prod(_sides_um(cell)) for cell in _cells("other")]
    assert min(filled) < 0.6  # an ellipse fills pi / 4 of its box


def test_area_follows_the_scale_and_the_patient():
    area = np.median([_area_um2(cell) for cell in _cells("tumor")])
    coarse = np.median([_area_um2(cell, 0.5) for cell in _cells("tumor", mpp=0.5)])
    large = np.median([_area_um2(cell) for cell in _cells("tumor", factor=1.2)])
    assert coarse == pytest.approx(area, rel=0.1)
    assert large == pytest.approx(1.44 * area, rel=0.1)


def test_same_generator_same_cell():
    first, again, other = (
        draw_cell(np.random.default_rng(seed), "plasma", angle=1.0, mpp=MPP, seed=0) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.stain, again.stain)
    assert np.array_equal(first.body_eosin, again.body_eosin)
    assert first.stain.shape != other.stain.shape or not np.array_equal(first.stain, other.stain)
