# SPDX-License-Identifier: Apache-2.0
"""From a plan to pixels: stain concentrations, Beer-Lambert light, optics and camera of the scanner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tral_monai.data.generated.cells import Stamps, place_cells
from tral_monai.data.generated.grid import CELL_PX, FieldStack, FloatArray, Frame
from tral_monai.data.generated.hospitals import Hospital
from tral_monai.data.generated.layout import Plan
from tral_monai.data.generated.nuclei import SHAPES, draw_patches, shared_patches, stamp
from tral_monai.data.generated.textures import TEXEL_UM, look_up, texture_bank

BLOCK_PX = 512
_HALO_PX = 16
_NOISE_PX = 1152
_BLUR_UM = 1.1
_FOLD_BLUR_UM = 0.6
_HAZE_BLUR_UM = 0.55


@dataclass(frozen=True)
class Patient:
    """What differs between patients of one hospital.

    Attributes:
        hematoxylin: Factor on hematoxylin.
        eosin: Factor on eosin.
        nuclei: Factor on the size of epithelial nuclei.
    """

    hematoxylin: float
    eosin: float
    nuclei: float

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Patient:
        """A random patient."""
        stain = np.exp(generator.normal(0, 0.07, 2))
        return cls(float(stain[0]), float(stain[1]), float(generator.uniform(0.88, 1.08)))


class SlideRenderer:
    """Renders any block of one planned slide."""

    def __init__(
        self,
        generator: np.random.Generator,
        plan: Plan,
        hospital: Hospital,
        patient: Patient,
        *,
        seed: int,
    ) -> None:
        """Scatter the cells and draw what is drawn once.

        Args:
            generator: Source of randomness of this slide.
            plan: The slide's layout.
            hospital: Stain and scanner.
            patient: The patient's own stain and nuclei.
            seed: Seed of the cohort, for the textures that all of its slides share.
        """
        self.plan = plan
        self.hospital = hospital
        self.patient = patient
        self.textures = texture_bank(seed)
        placing, drawing, dusting, noise = generator.spawn(4)
        self._fields = FieldStack(plan.fields)
        self._stamps = place_cells(placing, plan, size_factor=patient.nuclei)
        self._patches = {name: shared_patches(seed, name, plan.mpp) for name in SHAPES if name != "urothelial"}
        self._patches["urothelial"] = draw_patches(
            drawing, SHAPES["urothelial"], mpp=plan.mpp, size_factor=patient.nuclei
        )
        self._dust = _draw_dust(dusting, plan)
        self._noise_seed = int(noise.integers(2**63))
        self._noise = noise.standard_normal((3, _NOISE_PX, _NOISE_PX), dtype=np.float32)
        self._noise *= np.float32(hospital.noise_levels)
        stains = np.array([hospital.hematoxylin, hospital.eosin, hospital.blood_pigment, hospital.char], np.float32)
        self._stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)

    def block(self, x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """Pixels of a block at level 0, before JPEG. Only the camera's noise depends on how a slide is cut into blocks.

        Args:
            x_px: Left edge.
            y_px: Top edge.
            width_px: Width, at most ``BLOCK_PX``.
            height_px: Height, at most ``BLOCK_PX``.

        Returns:
            uint8 array (height_px, width_px, 3).
        """
        frame = Frame(x_px - _HALO_PX, y_px - _HALO_PX, width_px + 2 * _HALO_PX, height_px + 2 * _HALO_PX)
        light = self._light(frame)
        for dust_x, dust_y, patch in self._dust:
            half = patch.shape[0] // 2
            column, row = dust_x - frame.left_px, dust_y - frame.top_px
            if -half <= column < frame.width_px + half and -half <= row < frame.height_px + half:
                shade = np.zeros(light.shape[1:], np.float32)
                stamp(shade, patch, column, row)
                light *= (1 - shade)[None]
        tap = np.float32(self.hospital.optics_taps)
        light[:, :, 1:-1] = (1 - 2 * tap) * light[:, :, 1:-1] + tap * (light[:, :, :-2] + light[:, :, 2:])
        light[:, 1:-1] = (1 - 2 * tap) * light[:, 1:-1] + tap * (light[:, :-2] + light[:, 2:])
        light = light[:, _HALO_PX:-_HALO_PX, _HALO_PX:-_HALO_PX]
        place = np.random.default_rng([self._noise_seed, x_px, y_px]).integers(0, _NOISE_PX - BLOCK_PX, 2)
        noise = self._noise[:, place[0] : place[0] + height_px, place[1] : place[1] + width_px]
        light = light + noise + np.float32(0.5)
        return np.ascontiguousarray(np.clip(light, 0, 255).astype(np.uint8).transpose(1, 2, 0))

    def _light(self, frame: Frame) -> FloatArray:
        """Light through the slide in grey levels, float32 (3, height, width)."""
        glass = np.array(self.hospital.glass, np.float32)[:, None, None]
        fields = self._fields.on_block(frame)
        if fields["tissue_cells"].max() < -1.5:
            return np.broadcast_to(glass, (3, frame.height_px, frame.width_px)).copy()
        hematoxylin, eosin, pigment, char = self._concentrations(fields, frame)
        fold = _inside(fields["fold_cells"], 6)
        factor = _inside(fields["tissue_cells"], 7) * (1 + 0.75 * fold)
        factor *= 1 + np.float32(0.04) * fields["tone"]
        holes = np.zeros_like(factor)
        self._stamp("vacuole", holes, 0, frame)
        factor *= 1 - np.minimum(1.7 * holes, 1)
        amounts = (
            hematoxylin * np.float32(self.hospital.hematoxylin_strength * self.patient.hematoxylin),
            eosin * np.float32(self.hospital.eosin_strength * self.patient.eosin),
            pigment,
            char,
        )
        light = np.empty((3, frame.height_px, frame.width_px), np.float32)
        for channel in range(3):
            density = amounts[0] * self._stains[0, channel]
            for amount, stain in zip(amounts[1:], self._stains[1:], strict=True):
                density += amount * stain[channel]
            density *= factor
            np.exp(np.float32(-np.log(10)) * density, out=light[channel])
        light *= glass
        self._defocus(light, fields)
        return light

    def _defocus(self, light: FloatArray, fields: Mapping[str, FloatArray]) -> None:
        """Blur, in place, what lies out of focus: the damaged patches, folds, and a little of the sound tissue."""
        weights = (
            (_HAZE_BLUR_UM, fields["haze"]),
            (_BLUR_UM, _inside(fields["blur_cells"], 40)),
            (_FOLD_BLUR_UM, _inside(fields["fold_cells"], 8)),
        )
        for sigma_um, weight in weights:
            rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
            if len(rows) == 0:
                continue
            sigma_px = sigma_um / self.plan.mpp
            reach = int(3 * sigma_px + 0.5)
            top, left = max(rows[0] - reach, 0), max(columns[0] - reach, 0)
            window = np.s_[top : rows[-1] + reach + 1, left : columns[-1] + reach + 1]
            part = light[:, window[0], window[1]]
            part += weight[window] * (gaussian_filter(part, (0, sigma_px, sigma_px), truncate=3) - part)

    def _concentrations(
        self, fields: Mapping[str, FloatArray], frame: Frame
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Hematoxylin, eosin, blood pigment and char, each float32 (height, width)."""
        texels = np.float32(self.plan.mpp / TEXEL_UM)
        x = (np.arange(frame.left_px, frame.left_px + frame.width_px, dtype=np.float32) * texels)[None, :]
        y = (np.arange(frame.top_px, frame.top_px + frame.height_px, dtype=np.float32) * texels)[:, None]
        cos, sin = np.float32(np.cos(self.plan.depth_angle)), np.float32(np.sin(self.plan.depth_angle))
        u = fields["fibre_u"] + (y * cos - x * sin)
        v = fields["fibre_v"] + (x * cos + y * sin)
        grain = look_up(self.textures["grain"], np.broadcast_to(x, u.shape), np.broadcast_to(y, u.shape))

        dense = fields["density"]
        wall = np.clip((fields["blood_cells"] * np.float32(self.plan.cell_um) + 18) / 6, 0, 1)
        dense = np.maximum(dense, 0.8 * wall)
        loose_fibres = look_up(self.textures["loose"], u, v)
        dense_fibres = look_up(self.textures["muscle"], u, v)
        loose_eosin = 0.03 + 0.42 * np.clip((loose_fibres - 0.38) * 2.2, 0, 1)
        eosin = loose_eosin + dense * (0.21 + 0.28 * dense_fibres - loose_eosin)
        tint = 0.06 * np.clip(fields["hue"], 0, 2)
        hematoxylin = 0.05 + 0.05 * grain + tint
        crowd = 0.94 * np.clip((fields["inflamed"] - 0.4) * 2.5, 0, 1)
        eosin += crowd * (0.13 + 0.10 * grain - eosin)
        hematoxylin += crowd * (0.12 + 0.10 * grain - hematoxylin)
        pigment = np.zeros_like(eosin)
        char = np.zeros_like(eosin)

        muscle = _inside(fields["muscle_cells"], 8)
        if muscle.max() > 0:
            fibres, across = self._fascicles(frame, x, y)
            tone = np.where(across, 0.12 + 0.08 * grain, 0.21 + 0.28 * fibres)
            eosin += muscle * (tone - eosin)
            hematoxylin += muscle * (0.05 + 0.05 * grain + tint - hematoxylin)
        urothelium = _inside(fields["urothelium_cells"], 10)
        if urothelium.max() > 0:
            eosin += urothelium * (0.13 + 0.10 * grain - eosin)
            hematoxylin += urothelium * (0.12 + 0.10 * grain - hematoxylin)
        blood = _inside(fields["blood_cells"], 8)
        if blood.max() > 0:
            lysed = fields["lysed"]
            eosin += blood * (0.04 + 0.26 * np.minimum(2 * lysed, 1) - eosin)
            hematoxylin += blood * (0.02 - hematoxylin)
            pigment += blood * (0.06 + np.clip(lysed - 0.4, 0, 1) * (0.12 + 0.20 * grain))

        self._stamp_eosin(eosin, pigment, frame)
        burnt = _inside(fields["cautery_cells"], 60)
        cautery = np.maximum(burnt, _inside(fields["hyaline_cells"], 60)) * fields["severity"]
        if cautery.max() > 0:
            smear = look_up(self.textures["smear"], u, v)
            eosin += cautery * (0.20 + 0.32 * smear - eosin)
            hematoxylin += cautery * (0.08 + 0.16 * (1 - smear) - hematoxylin)
            pigment *= 1 - cautery
            char += burnt * 0.5 * np.exp(-np.maximum(fields["piece_um"], 0) / 18)
        nuclei = np.zeros_like(eosin)
        for name in ("urothelial", "lymphoid", "spindle", "cigar", "crushed"):
            self._stamp(name, nuclei, 0, frame)
        hematoxylin = np.maximum(hematoxylin, nuclei)
        eosin *= 1 - 0.35 * np.minimum(nuclei, 1)
        return hematoxylin, eosin, pigment, char

    def _fascicles(self, frame: Frame, x: FloatArray, y: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Muscle fibres along each bundle, and where bundles are cut across."""
        rows = np.clip(
            np.arange(frame.top_px, frame.top_px + frame.height_px) // CELL_PX, 0, self.plan.tissue.shape[0] - 1
        )
        columns = np.clip(
            np.arange(frame.left_px, frame.left_px + frame.width_px) // CELL_PX, 0, self.plan.tissue.shape[1] - 1
        )
        cell = np.ix_(rows, columns)
        cos, sin = np.cos(self.plan.fascicle_angle)[cell], np.sin(self.plan.fascicle_angle)[cell]
        fibres = look_up(self.textures["muscle"], x * cos + y * sin, y * cos - x * sin)
        return fibres, self.plan.fascicle_across[cell]

    def _stamp_eosin(self, eosin: FloatArray, pigment: FloatArray, frame: Frame) -> None:
        self._stamp("urothelial", eosin, 1, frame)
        self._stamp("fibre_across", eosin, 0, frame)
        self._stamp("red_cell", pigment, 0, frame)
        self._stamp("red_cell", eosin, 0, frame)

    def _stamp(self, name: str, canvas: FloatArray, layer: int, frame: Frame) -> None:
        stamps: Stamps = self._stamps[name]
        patches = self._patches[name][layer]
        for i in stamps.near(frame, patches.shape[1] // 2):
            stamp(
                canvas,
                patches[stamps.patch[i]],
                int(stamps.x_px[i]) - frame.left_px,
                int(stamps.y_px[i]) - frame.top_px,
            )


def _inside(distance_cells: FloatArray, edge_px: float) -> FloatArray:
    """0 outside, 1 inside of an outline, with a ramp ``edge_px`` wide."""
    return np.clip(distance_cells * np.float32(CELL_PX / edge_px) + np.float32(0.5), 0, 1)


def _draw_dust(generator: np.random.Generator, plan: Plan) -> list[tuple[int, int, FloatArray]]:
    """A few dark, soft specks anywhere on the slide."""
    count = max(plan.width_px * plan.height_px // 1_500_000, 2)
    specks = []
    for _ in range(count):
        reach_um = generator.uniform(3, 11)
        half = int(2.2 * reach_um / plan.mpp)
        axis = np.arange(-half, half + 1) * plan.mpp / reach_um
        angle = np.arctan2(axis[:, None], axis[None, :])
        radius = np.hypot(axis[:, None], axis[None, :]) * (1 + 0.3 * np.cos(2 * angle + generator.uniform(0, 6)))
        patch = generator.uniform(0.25, 0.7) * np.clip((1 - radius) * 2.5, 0, 1)
        x, y = int(generator.integers(plan.width_px)), int(generator.integers(plan.height_px))
        specks.append((x, y, patch.astype(np.float32)))
    return specks
