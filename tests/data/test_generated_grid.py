# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.data.generated.grid import CELL_PX, FieldStack, Frame, signed_distance, smooth_noise, spline_weights


def test_smooth_noise_is_standard_and_smooth():
    noise = smooth_noise(np.random.default_rng(0), (120, 90), 6.0)
    assert noise.shape == (120, 90)
    assert noise.dtype == np.float32
    assert abs(float(noise.mean())) < 1e-5
    assert abs(float(noise.std()) - 1) < 1e-5
    # Neighbours of a field with correlation length 6 hardly differ; those of white noise differ by 1.13 on average.
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.2


def test_signed_distance_by_hand():
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    distance = signed_distance(mask)
    assert distance[2, 2] == 1.5
    assert distance[1, 1] == 0.5
    assert distance[0, 2] == -0.5
    assert np.isclose(distance[0, 0], 0.5 - np.sqrt(2))


def test_signed_distance_without_an_outline_is_far():
    assert signed_distance(np.ones((2, 2), bool)).min() > 100
    assert signed_distance(np.zeros((2, 2), bool)).max() < -100


def test_spline_weights_sum_to_one_and_keep_straight_lines():
    weights = spline_weights(32, 64, 0, 12)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    cell_centres_px = (np.arange(12) + 0.5) * CELL_PX - 0.5
    assert np.allclose(weights @ cell_centres_px, np.arange(32, 96), atol=1e-3)


def test_value_of_a_pixel_does_not_depend_on_the_block():
    field = smooth_noise(np.random.default_rng(1), (20, 30), 2.0)
    fields = FieldStack({"tone": field})
    whole = fields.on_block(Frame(-16, -16, 300, 200))["tone"]
    part = fields.on_block(Frame(100, 37, 50, 40))["tone"]
    assert np.allclose(part, whole[53:93, 116:166], atol=1e-6)


def test_distances_far_from_the_outline_are_cut_to_eight_cells():
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    fields = FieldStack({"piece_cells": signed_distance(mask)})
    assert (fields.on_block(Frame(0, 0, 64, 64))["piece_cells"] == 8).all()
    assert (fields.on_block(Frame(560, 0, 64, 64))["piece_cells"] == -8).all()
    near = fields.on_block(Frame(288, 100, 64, 8))["piece_cells"]
    assert np.allclose(near[0, 32], -0.5 / CELL_PX, atol=0.02)  # pixel 320 is half a pixel outside of the outline
