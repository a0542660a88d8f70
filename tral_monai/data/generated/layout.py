# SPDX-License-Identifier: Apache-2.0
"""The plan of one generated slide: which tissue lies where, on a grid of coarse cells.

A slide shows a piece of bladder wall. From the lumen inwards: a mucosa (papillary fronds on one side, a flat lining
with solid sheets and nests on the other), a connective-tissue layer with vessels and inflammation, and muscle in
bundles. Burnt edges, folds and out-of-focus patches lie across all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label
from scipy.spatial import cKDTree

from tral_monai.data.generated.grid import CELL_PX, BoolArray, FloatArray, signed_distance, smooth_noise
from tral_monai.data.generated.textures import TEXEL_UM

CLASSES = ("Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
_REFERENCE_EXTENT_UM = 1216.0


class Tissue(IntEnum):
    """What a cell holds before anything damaged it."""

    GLASS = 0
    STROMA = 1
    UROTHELIUM = 2
    MUSCLE = 3
    BLOOD = 4


class Damage(IntEnum):
    """What happened to a cell."""

    NONE = 0
    CAUTERY = 1
    BLUR = 2
    FOLD = 3


@dataclass(frozen=True)
class Plan:
    """One slide's layout; arrays are (rows, columns) of cells.

    Attributes:
        width_px: Width at level 0.
        height_px: Height at level 0.
        mpp: Micrometres per pixel at level 0.
        tissue: ``Tissue`` of each cell, int8.
        damage: ``Damage`` of each cell, int8.
        fields: Coarse fields for rendering. Names that end in ``_cells`` are signed distances in cells.
        fascicle_angle: Angle of the muscle fibres in radians, constant within a bundle.
        fascicle_across: True where a bundle is cut across its fibres.
        fibre_angle: Direction of the connective tissue's fibres in radians.
        depth_angle: Direction from the lumen to the depth in radians.
    """

    width_px: int
    height_px: int
    mpp: float
    tissue: NDArray[np.int8]
    damage: NDArray[np.int8]
    fields: dict[str, FloatArray]
    fascicle_angle: FloatArray
    fascicle_across: BoolArray
    fibre_angle: FloatArray
    depth_angle: float

    @property
    def cell_um(self) -> float:
        """Edge length of a cell in micrometres."""
        return CELL_PX * self.mpp

    def class_mask(self, name: str) -> BoolArray:
        """Cells whose true class is ``name`` (one of ``CLASSES``); damage goes before tissue."""
        whole = self.damage == Damage.NONE
        on_slide = self.tissue != Tissue.GLASS
        if name == "Damaged":
            return on_slide & ~whole
        tissue = Tissue[name.upper()]
        return whole & (self.tissue == tissue)


def plan_slide(generator: np.random.Generator, *, width_px: int, height_px: int, mpp: float) -> Plan:
    """Draw the plan of one slide.

    Args:
        generator: Source of randomness; same state, same plan.
        width_px: Width at level 0.
        height_px: Height at level 0.
        mpp: Micrometres per pixel at level 0.

    Returns:
        The plan. Structures keep their size in micrometres, and shrink with the root of the extent on small slides.
    """
    return _Draft(generator, width_px, height_px, mpp).finish()


class _Draft:
    """Working state of ``plan_slide``: coordinates in micrometres around the slide's centre."""

    def __init__(self, generator: np.random.Generator, width_px: int, height_px: int, mpp: float) -> None:
        self.generator = generator
        self.size_px = (width_px, height_px)
        self.mpp = mpp
        self.cell_um = CELL_PX * mpp
        self.shape = (-(-height_px // CELL_PX), -(-width_px // CELL_PX))
        rows, columns = self.shape
        self.x_um = ((np.arange(columns) + 0.5) * self.cell_um - width_px * mpp / 2)[None, :] * np.ones((rows, 1))
        self.y_um = ((np.arange(rows) + 0.5) * self.cell_um - height_px * mpp / 2)[:, None] * np.ones((1, columns))
        self.half_um = min(width_px, height_px) * mpp / 2
        self.scale = float(np.sqrt(min(2 * self.half_um / _REFERENCE_EXTENT_UM, 1.0)))

    def noise(self, sigma_um: float) -> FloatArray:
        return smooth_noise(self.generator, self.shape, sigma_um * self.scale / self.cell_um)

    def between(self, low: float, high: float) -> float:
        return float(self.generator.uniform(low, high))

    def finish(self) -> Plan:
        piece = self._piece()
        self.depth_angle = self.between(0, 2 * np.pi)
        normal = np.cos(self.depth_angle), np.sin(self.depth_angle)
        self.depth = (self.x_um * normal[0] + self.y_um * normal[1]) / self.half_um + 0.09 * self.noise(130)
        self.lateral = (self.y_um * normal[0] - self.x_um * normal[1]) / self.half_um
        self.mucosa_end = self.between(-0.30, -0.18)
        self.muscle_start = self.between(0.20, 0.34) - 0.25 * (1 - self.scale)
        self.piece_um = signed_distance(piece) * self.cell_um

        tissue = np.where(piece, Tissue.STROMA, Tissue.GLASS).astype(np.int8)
        self._mucosa(tissue)
        muscle_angle, across = self._muscle(tissue)
        lysed = self._vessels(tissue)
        damage = self._damage(tissue)
        fields, fibre_angle = self._fields(tissue, damage, lysed)
        return Plan(
            width_px=self.size_px[0],
            height_px=self.size_px[1],
            mpp=self.mpp,
            tissue=tissue,
            damage=damage,
            fields=fields,
            fascicle_angle=muscle_angle,
            fascicle_across=across,
            fibre_angle=fibre_angle,
            depth_angle=self.depth_angle,
        )

    def _piece(self) -> BoolArray:
        """One irregular piece of tissue with a margin of glass."""
        half_x, half_y = self.size_px[0] * self.mpp * 0.465, self.size_px[1] * self.mpp * 0.465
        radius = ((np.abs(self.x_um) / half_x) ** 4 + (np.abs(self.y_um) / half_y) ** 4) ** 0.25
        mask = radius + 0.035 * self.noise(80) + 0.008 * self.noise(14) < 0.95
        parts, _ = label(mask)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        piece: BoolArray = parts == sizes.argmax()
        return piece

    def _mucosa(self, tissue: NDArray[np.int8]) -> None:
        """Urothelium: fronds with slits of lumen, a flat lining, solid sheets and nests."""
        border = self.between(-0.25, 0.25) + 0.10 * self.noise(90)
        side = 1.0 if self.generator.random() < 0.5 else -1.0
        papillary = side * (self.lateral - border) > 0
        surface = self.depth < self.mucosa_end
        inside = tissue != Tissue.GLASS

        # Level sets of one noise field: its zero lines are the fronds' cores, its extremes the lumen between fronds.
        ridge = np.abs(self.noise(50)) + 0.05 * self.noise(9)
        base = np.clip((self.depth - self.mucosa_end + 0.12) / 0.12, 0, 1)
        lumen = surface & papillary & (ridge > 1.05 + 2.5 * base)
        fronds = surface & papillary & (ridge > 0.16 + 0.5 * base) & ~lumen
        lining_um = self.between(60, 85) * self.scale**0.4 * (1 + 0.25 * self.noise(60))
        lining = (self.depth < self.mucosa_end + 0.1) & ~papillary & (self.piece_um < lining_um)
        deep_end = self.muscle_start - 0.08
        sheets = ~papillary & (self.depth < deep_end - 0.1) & (self.noise(62) > 0.75) & (self.noise(12) > -1.7)
        nests = (self.depth > self.mucosa_end) & (self.depth < deep_end) & (self.noise(30) > 1.6)
        tissue[inside & (fronds | lining | sheets | nests)] = Tissue.UROTHELIUM
        tissue[inside & lumen] = Tissue.GLASS

    def _muscle(self, tissue: NDArray[np.int8]) -> tuple[FloatArray, BoolArray]:
        """Bundles of muscle, each with its own fibre direction, between septa of connective tissue."""
        spacing_um = 150 * self.scale
        reach = int(np.ceil(1.6 * self.half_um * max(self.size_px) / min(self.size_px) / spacing_um))
        lattice = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), -1).reshape(-1, 2) * spacing_um
        seeds = lattice + self.generator.uniform(-0.42, 0.42, lattice.shape) * spacing_um
        warped = np.stack([self.x_um + 14 * self.noise(40), self.y_um + 14 * self.noise(40)], -1)
        distance, nearest = cKDTree(seeds).query(warped.reshape(-1, 2), k=2)
        gap_um = (distance[:, 1] - distance[:, 0]).reshape(self.shape)
        bundle = nearest[:, 0].reshape(self.shape)
        across = (self.generator.random(len(seeds)) < 0.20)[bundle]
        lean = self.generator.normal(0, 0.5, len(seeds))[bundle]
        angle = (self.depth_angle + np.pi / 2 + lean).astype(np.float32)
        septa = self.noise(62) > 0.95
        stroma = tissue == Tissue.STROMA
        deep = self.depth > self.muscle_start
        # The thin septa count as muscle, as a pathologist would draw it, but are drawn as connective tissue.
        muscle = stroma & deep & ~septa
        tissue[muscle] = Tissue.MUSCLE
        self.bundles = muscle & (gap_um > 17 * self.scale)
        return angle, across

    def _vessels(self, tissue: NDArray[np.int8]) -> FloatArray:
        """Blood in walled vessels and one bleeding; returns where the red cells have dissolved (1) or not (0)."""
        lysed = np.zeros(self.shape, np.float32)
        layer = (self.depth > self.mucosa_end + 0.02) & (self.depth < self.muscle_start + 0.25)
        rough = self.noise(16)
        taken = np.zeros(self.shape, bool)
        wanted = max(round(self.between(6, 9) * self.scale * max(self.half_um / 608, 1.0)), 3)
        margin = self.piece_um > 80 * self.scale
        for index in range(60):
            room = np.argwhere(layer & margin & ~taken)
            if wanted == 0 or len(room) == 0:
                break
            row, column = room[self.generator.integers(len(room))]
            long_um = self.between(46, 84) * self.scale**0.25
            flat = self.between(0.8 - 0.3 * self.scale, 0.95)
            turn = self.between(0, np.pi)
            dx, dy = self.x_um - self.x_um[row, column], self.y_um - self.y_um[row, column]
            u = dx * np.cos(turn) + dy * np.sin(turn)
            v = dy * np.cos(turn) - dx * np.sin(turn)
            edge_um = (np.hypot(u, v / flat) - long_um) * flat
            bleeding = index == 0 and self.generator.random() < 0.6
            edge_um = edge_um + (17 if bleeding else 6.0) * rough
            wall_um = 0.0 if bleeding else self.between(7, 16)
            inside = tissue != Tissue.GLASS
            if (taken & (edge_um < 40)).any() or not inside[edge_um < wall_um].all():
                continue
            tissue[edge_um < wall_um] = Tissue.STROMA
            tissue[edge_um < 0] = Tissue.BLOOD
            taken |= edge_um < wall_um + 20
            if not bleeding and self.generator.random() < 0.35:
                lysed[edge_um < wall_um] = self.between(0.35, 1.0)
            wanted -= 1
        return lysed

    def _damage(self, tissue: NDArray[np.int8]) -> NDArray[np.int8]:
        """Burnt edges away from the lumen, out-of-focus patches, one fold."""
        damage = np.full(self.shape, Damage.NONE, np.int8)
        solid = tissue != Tissue.GLASS
        for _ in range(2 if self.scale > 0.8 else 1):
            room = np.argwhere(solid & (self.piece_um > 70 * self.scale))
            row, column = room[self.generator.integers(len(room))]
            reach_um = self.between(95, 140) * self.scale
            away_um = np.hypot(self.x_um - self.x_um[row, column], self.y_um - self.y_um[row, column])
            damage[away_um + 20 * self.noise(50) < reach_um] = Damage.BLUR

        room = np.argwhere(solid & (self.piece_um > 140 * self.scale))
        row, column = room[self.generator.integers(len(room))]
        turn = self.between(0, np.pi)
        dx, dy = self.x_um - self.x_um[row, column], self.y_um - self.y_um[row, column]
        along = dx * np.cos(turn) + dy * np.sin(turn)
        across = dy * np.cos(turn) - dx * np.sin(turn) + 26 * self.scale * self.noise(90)
        width_um = self.between(28, 38) * self.scale**0.5
        taper = np.clip(1 - (np.abs(along) / (self.between(210, 300) * self.scale)) ** 2, 0, 1)
        damage[np.abs(across) < width_um * taper] = Damage.FOLD

        bearing = np.arctan2(self.lateral, self.depth)
        sector = self.generator.choice([-1.0, 1.0]) * self.between(0.5, 1.7)
        facing = np.cos(bearing - sector) > np.cos(self.between(0.62, 0.85) * np.sqrt(self.scale))
        burnt_um = self.between(75, 120) * self.scale**0.7 * (1 + 0.28 * self.noise(50))
        damage[facing & (self.depth > self.mucosa_end) & (self.piece_um < burnt_um)] = Damage.CAUTERY
        damage[~solid] = Damage.NONE
        return damage

    def _fields(
        self, tissue: NDArray[np.int8], damage: NDArray[np.int8], lysed: FloatArray
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """Everything that rendering reads between the cells."""

        def outline(mask: BoolArray) -> FloatArray:
            return gaussian_filter(signed_distance(mask), 0.6)

        middle = (self.mucosa_end + self.muscle_start) / 2
        density = 1 / (1 + np.exp(-((self.depth - middle) / 0.07 + 1.1 * self.noise(55))))
        septa = (tissue == Tissue.MUSCLE) & ~self.bundles
        density = density * (1 - 0.75 * gaussian_filter(septa.astype(np.float32), 0.8))
        inflamed = 1 / (1 + np.exp(-8 * (self.noise(46) - 0.55))) * (self.depth < self.muscle_start)
        # Scar-like collagen: close up it looks burnt, but it lies inside of the piece, not at its edge.
        hyaline = (tissue == Tissue.STROMA) & (self.noise(46) > 0.95) & (self.piece_um > 130 * self.scale)
        fibre_u = 34 * self.scale * self.noise(80) / TEXEL_UM
        fibre_v = (40 * self.scale * self.noise(72) + 20 * self.noise(42)) / TEXEL_UM
        cells_per_texel = TEXEL_UM / self.cell_um
        slope_y, slope_x = np.gradient(fibre_v * cells_per_texel)
        slope_x = slope_x + np.cos(self.depth_angle)
        slope_y = slope_y + np.sin(self.depth_angle)
        fibre_angle = (np.arctan2(slope_y, slope_x) + np.pi / 2).astype(np.float32)
        fields = {
            "tissue_cells": outline(tissue != Tissue.GLASS),
            "piece_um": self.piece_um,
            "urothelium_cells": outline(tissue == Tissue.UROTHELIUM),
            "muscle_cells": outline(self.bundles & (tissue == Tissue.MUSCLE)),
            "blood_cells": outline(tissue == Tissue.BLOOD),
            "cautery_cells": outline(damage == Damage.CAUTERY),
            "hyaline_cells": outline(hyaline),
            "blur_cells": outline(damage == Damage.BLUR),
            "fold_cells": outline(damage == Damage.FOLD),
            "density": density,
            "inflamed": inflamed,
            "lysed": lysed,
            "tone": self.noise(70),
            "hue": self.noise(75),
            "haze": np.clip(2 * self.noise(60) - 2, 0, 1),
            "severity": np.clip(self.between(0.55, 0.9) + 0.2 * self.noise(45), 0.3, 1),
            "fibre_u": fibre_u,
            "fibre_v": fibre_v,
        }
        return {name: np.asarray(field, dtype=np.float32) for name, field in fields.items()}, fibre_angle
