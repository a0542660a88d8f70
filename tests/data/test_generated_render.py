# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tral_monai.data.generated.hospitals import HOSPITAL_A, HOSPITAL_B, Hospital
from tral_monai.data.generated.layout import Damage, Plan, Tissue, plan_slide
from tral_monai.data.generated.render import Patient, SlideRenderer

SIZE_PX = 1600
PATIENT = Patient(hematoxylin=1.0, eosin=1.0, nuclei=1.0)


def _renderer(hospital: Hospital, seed: int = 0) -> SlideRenderer:
    plan = plan_slide(np.random.default_rng(2), width_px=SIZE_PX, height_px=SIZE_PX, mpp=hospital.mpp)
    return SlideRenderer(np.random.default_rng(seed), plan, hospital, PATIENT, seed=0)


def _whole(renderer: SlideRenderer, block_px: int = 400) -> np.ndarray:
    rows = [
        np.concatenate([renderer.block(x, y, block_px, block_px) for x in range(0, SIZE_PX, block_px)], axis=1)
        for y in range(0, SIZE_PX, block_px)
    ]
    return np.concatenate(rows, axis=0)


@pytest.fixture(scope="module")
def noiseless() -> SlideRenderer:
    return _renderer(replace(HOSPITAL_A, noise_levels=0.0))


@pytest.fixture(scope="module")
def image(noiseless: SlideRenderer) -> np.ndarray:
    return _whole(noiseless)


def _cells(plan: Plan, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return image.reshape(SIZE_PX // 16, 16, SIZE_PX // 16, 16, 3).mean(axis=(1, 3))[mask]


def test_blocks_join_without_a_seam(noiseless: SlideRenderer, image: np.ndarray):
    # Small blocks too: most of them are far from some outline and take the short way there.
    difference = np.abs(_whole(noiseless, block_px=160).astype(int) - image)
    assert difference.max() <= 1  # one grey level of rounding
    assert (difference > 0).mean() < 0.01


def test_glass_has_the_scanners_tint(image: np.ndarray):
    assert np.abs(image[:20, :20].reshape(-1, 3).mean(axis=0) - HOSPITAL_A.glass).max() < 1


def test_colours_are_those_of_hematoxylin_and_eosin(noiseless: SlideRenderer, image: np.ndarray):
    plan = noiseless.plan
    urothelium = _cells(plan, image, plan.class_mask("Urothelium")).mean(axis=0)
    blood = _cells(plan, image, plan.class_mask("Blood")).mean(axis=0)
    assert urothelium[2] > urothelium[1]  # purple: blue over green
    assert blood[0] > blood[2] + 40  # red over blue
    assert blood[0] > urothelium[0] + 30


def test_out_of_focus_tissue_lacks_fine_detail(noiseless: SlideRenderer, image: np.ndarray):
    plan = noiseless.plan
    detail = np.abs(np.diff(image.astype(float), axis=1, append=0)).mean(axis=2)
    detail = detail.reshape(SIZE_PX // 16, 16, SIZE_PX // 16, 16).mean(axis=(1, 3))
    stroma = plan.tissue == Tissue.STROMA
    blurred = plan.fields["blur_cells"] > 1.5
    sharp = (plan.damage == Damage.NONE) & (plan.fields["haze"] == 0)
    assert detail[stroma & blurred].mean() < 0.6 * detail[stroma & sharp].mean()


def test_same_seed_same_pixels_with_noise():
    first, again = (_renderer(HOSPITAL_B).block(600, 600, 256, 200) for _ in range(2))
    assert first.shape == (200, 256, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, _renderer(HOSPITAL_B, seed=1).block(600, 600, 256, 200))


def test_hospitals_differ_in_stain():
    means = [_whole(_renderer(hospital)).reshape(-1, 3).mean(axis=0) for hospital in (HOSPITAL_A, HOSPITAL_B)]
    # B is bluer: more blue for its red.
    assert means[1][2] - means[1][0] > means[0][2] - means[0][0] + 5


def test_patients_are_drawn_from_the_generator():
    one, same, other = (Patient.draw(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert 0.88 <= one.nuclei <= 1.08
