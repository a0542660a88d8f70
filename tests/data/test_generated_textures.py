# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from tral_monai.data.generated.textures import TEXTURE_PX, fibre_texture, look_up, periodic_noise, texture_bank


def _similarity(texture: np.ndarray, shift: int, axis: int) -> float:
    return float(np.corrcoef(texture.ravel(), np.roll(texture, shift, axis).ravel())[0, 1])


def test_periodic_noise_has_unit_variance_and_closes_at_the_edge():
    noise = periodic_noise(np.random.default_rng(0), 8, 8)
    assert abs(float(noise.std()) - 1) < 1e-4
    inside = np.abs(np.diff(noise, axis=1)).mean()
    across_the_edge = np.abs(noise[:, 0] - noise[:, -1]).mean()
    assert across_the_edge < 1.3 * inside


def test_fibres_run_along_the_columns_axis():
    texture = fibre_texture(
        np.random.default_rng(0), along_px=40, across_px=2, coarse=0.0, crimp_px=0.0, crimp_length_px=1
    )
    assert _similarity(texture, 10, axis=1) > 0.9
    assert _similarity(texture, 10, axis=0) < 0.1


def test_grey_levels_are_uniform():
    texture = texture_bank(0)["loose"]
    assert texture.min() >= 0
    assert texture.max() <= 1
    assert np.allclose(np.quantile(texture, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.04)


def test_bank_depends_on_the_seed_only():
    assert set(texture_bank(0)) == {"loose", "muscle", "smear", "grain"}
    first = texture_bank(0)["muscle"].copy()
    texture_bank.cache_clear()
    assert np.array_equal(texture_bank(0)["muscle"], first)
    assert not np.array_equal(texture_bank(1)["muscle"], first)


def test_look_up_repeats():
    texture = texture_bank(0)["grain"]
    u, v = np.array([[3.2, 5.0]], np.float32), np.array([[7.9, 1.0]], np.float32)
    expected = np.array([[texture[7, 3], texture[1, 5]]])
    assert np.array_equal(look_up(texture, u, v), expected)
    assert np.array_equal(look_up(texture, u + TEXTURE_PX, v - 3 * TEXTURE_PX), _at(texture, u, v - 3 * TEXTURE_PX))


def _at(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    rows, columns = np.trunc(v).astype(int) % TEXTURE_PX, np.trunc(u).astype(int) % TEXTURE_PX
    return texture[rows, columns]
