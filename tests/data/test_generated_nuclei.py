# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.data.generated.nuclei import ORIENTATIONS, SHAPES, draw_patches, orientation_index, stamp


def test_patches_have_the_shapes_size_and_direction():
    shape = SHAPES["cigar"]
    stain, halo = draw_patches(np.random.default_rng(0), shape, mpp=0.25)
    assert stain.shape == halo.shape
    assert stain.shape[0] == ORIENTATIONS * shape.variants
    assert stain.shape[1] % 2 == 1
    assert not halo.any()
    lying, standing = stain[0] > 0.05, stain[ORIENTATIONS // 2 * shape.variants] > 0.05
    long_px = shape.length_um / 0.25
    assert abs(np.ptp(np.flatnonzero(lying.any(axis=0))) - long_px) < 0.3 * long_px
    assert np.ptp(np.flatnonzero(lying.any(axis=1))) < 0.6 * long_px
    assert abs(np.ptp(np.flatnonzero(standing.any(axis=1))) - long_px) < 0.3 * long_px


def test_epithelial_nuclei_carry_cytoplasm_that_grows_with_the_patient():
    small = draw_patches(np.random.default_rng(0), SHAPES["urothelial"], mpp=0.25, size_factor=0.8)[1]
    large = draw_patches(np.random.default_rng(0), SHAPES["urothelial"], mpp=0.25, size_factor=1.2)[1]
    ratio = (large > 0).sum(axis=(1, 2)).mean() / (small > 0).sum(axis=(1, 2)).mean()
    assert 1.9 < ratio < 2.6  # (1.2 / 0.8) ** 2 = 2.25


def test_finer_scanner_draws_more_pixels():
    coarse = draw_patches(np.random.default_rng(0), SHAPES["red_cell"], mpp=0.5)[0]
    fine = draw_patches(np.random.default_rng(0), SHAPES["red_cell"], mpp=0.25)[0]
    ratio = (fine > 0.1).sum() / (coarse > 0.1).sum()
    assert 3.5 < ratio < 4.5


def test_orientation_index_knows_no_head_and_tail():
    angles = np.array([0.0, np.pi, -np.pi, np.pi / 2, np.pi / ORIENTATIONS], np.float32)
    assert orientation_index(angles).tolist() == [0, 0, 0, ORIENTATIONS // 2, 1]


def test_stamp_keeps_the_greater_value_and_cuts_at_the_edge():
    canvas = np.zeros((3, 3), np.float32)
    canvas[0, 0] = 5
    patch = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    stamp(canvas, patch, 0, 0)
    assert canvas.tolist() == [[5, 6, 0], [8, 9, 0], [0, 0, 0]]


def test_stamp_outside_changes_nothing():
    canvas = np.zeros((3, 3), np.float32)
    for x, y in ((-2, 1), (5, 1), (1, -9), (1, 4)):
        stamp(canvas, np.ones((3, 3), np.float32), x, y)
    assert not canvas.any()
