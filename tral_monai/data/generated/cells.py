# SPDX-License-Identifier: Apache-2.0
"""Where the nuclei, red cells and cross-cut fibres of a planned slide lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tral_monai.data.generated.grid import CELL_PX, FloatArray, Frame
from tral_monai.data.generated.layout import Damage, Plan, Tissue
from tral_monai.data.generated.nuclei import SHAPES, orientation_index


@dataclass(frozen=True)
class Stamps:
    """Positions of one kind of patch on one slide.

    Attributes:
        x_px: Column of each centre at level 0, int64 (n,).
        y_px: Row of each centre.
        patch: Index into the bank of patches.
    """

    x_px: NDArray[np.int64]
    y_px: NDArray[np.int64]
    patch: NDArray[np.int64]

    def joined(self, other: Stamps) -> Stamps:
        """These patches, then the other's."""
        return Stamps(
            np.concatenate([self.x_px, other.x_px]),
            np.concatenate([self.y_px, other.y_px]),
            np.concatenate([self.patch, other.patch]),
        )

    def near(self, frame: Frame, reach_px: int) -> NDArray[np.int64]:
        """Indices of the patches whose centre is within ``reach_px`` of a block, in drawing order."""
        hit = (self.x_px >= frame.left_px - reach_px) & (self.x_px < frame.left_px + frame.width_px + reach_px)
        hit &= (self.y_px >= frame.top_px - reach_px) & (self.y_px < frame.top_px + frame.height_px + reach_px)
        return np.flatnonzero(hit)


def jittered_grid(
    generator: np.random.Generator, *, width_px: int, height_px: int, spacing_px: float, jitter: float = 0.28
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Points of a hexagonal grid, each moved a little: packed as cells are, never on top of each other.

    Args:
        generator: Source of randomness.
        width_px: Width of the area.
        height_px: Height of the area.
        spacing_px: Distance between neighbours before they are moved.
        jitter: Greatest move along each axis, in units of the spacing.

    Returns:
        Columns and rows, int64, all inside of the area.
    """
    row_px = spacing_px * 0.866
    rows, columns = int(height_px / row_px) + 1, int(width_px / spacing_px) + 1
    y, x = np.meshgrid(np.arange(rows) * row_px, np.arange(columns) * spacing_px, indexing="ij")
    x = x + (np.arange(rows) % 2)[:, None] * spacing_px / 2
    x = x + generator.uniform(-jitter, jitter, x.shape) * spacing_px
    y = y + generator.uniform(-jitter, jitter, y.shape) * spacing_px
    xi, yi = np.rint(x.ravel()).astype(np.int64), np.rint(y.ravel()).astype(np.int64)
    inside = (xi >= 0) & (yi >= 0) & (xi < width_px) & (yi < height_px)
    return xi[inside], yi[inside]


def place_cells(generator: np.random.Generator, plan: Plan, *, size_factor: float) -> dict[str, Stamps]:
    """Scatter every kind of patch over a plan.

    Args:
        generator: Source of randomness.
        plan: The slide's plan.
        size_factor: The patient's factor on the size of epithelial nuclei and on their distance.

    Returns:
        Stamps by the name of their shape (keys of ``nuclei.SHAPES``).
    """
    tissue, burnt = plan.tissue, plan.damage == Damage.CAUTERY
    density, inflamed = plan.fields["density"], plan.fields["inflamed"]
    stroma = (tissue == Tissue.STROMA).astype(np.float32)
    septum = ((tissue == Tissue.MUSCLE) & (plan.fields["muscle_cells"] <= 0)).astype(np.float32)
    muscle = ((tissue == Tissue.MUSCLE) & (plan.fields["muscle_cells"] > 0)).astype(np.float32)
    blood = (tissue == Tissue.BLOOD).astype(np.float32)
    wall = stroma * ((plan.fields["blood_cells"] * plan.cell_um) > -16)
    radial = _slope_angle(plan.fields["blood_cells"])
    along = np.where(wall > 0, radial + np.pi / 2, np.where(muscle > 0, plan.fascicle_angle, plan.fibre_angle))
    long = muscle * ~plan.fascicle_across
    smeared = burnt | ((plan.fields["hyaline_cells"] > 0) & (tissue == Tissue.STROMA))
    survives = 1 - 0.85 * smeared
    # name: (spacing in um, probability that a site is taken, angle, spread of the angle in radians)
    scatter: dict[str, tuple[float, FloatArray, FloatArray, float]] = {
        "urothelial": (
            9.3 * size_factor,
            0.97 * (tissue == Tissue.UROTHELIUM) * survives,
            _slope_angle(plan.fields["urothelium_cells"]),
            0.35,
        ),
        "lymphoid": (8.0, stroma * (0.015 + 0.14 * inflamed) * survives, plan.fibre_angle, 3.0),
        "spindle": (
            13.5,
            (stroma * (0.42 - 0.26 * density) * (1 - inflamed) + 0.4 * wall + 0.16 * long + 0.4 * septum) * survives,
            along,
            0.22,
        ),
        "cigar": (14.5, (0.46 * long + 0.42 * stroma * density * (1 - inflamed)) * survives, along, 0.10),
        "fibre_across": (6.4, 0.93 * (muscle - long) * survives, plan.fascicle_angle, 3.0),
        "crushed": (13.0, 0.62 * (smeared & (tissue != Tissue.GLASS)), plan.fibre_angle, 0.35),
        "vacuole": (38.0, 0.75 * (burnt & (tissue != Tissue.GLASS)) + 0.05 * stroma * ~burnt, plan.fibre_angle, 3.0),
        "red_cell": (5.9, 0.96 * blood * (1 - 0.97 * (plan.fields["lysed"] > 0)) * survives, plan.fibre_angle, 3.0),
    }
    stamps = {}
    for name, (spacing_um, probability, angle, spread) in scatter.items():
        stamps[name] = _scatter(generator, plan, name, spacing_um, probability, angle, spread)
    # Nuclei of cross-cut fibres, and inflammation: its cells look like urothelium, only their arrangement differs.
    central = _scatter(generator, plan, "lymphoid", 24.0, 0.3 * (muscle - long) * survives, plan.fibre_angle, 3.0)
    stamps["lymphoid"] = stamps["lymphoid"].joined(central)
    crowd = 0.82 * stroma * np.clip((inflamed - 0.4) * 2.5, 0, 1) * survives
    crowded = _scatter(generator, plan, "urothelial", 9.0 * size_factor, crowd, plan.fibre_angle, 3.0, jitter=0.46)
    stamps["urothelial"] = stamps["urothelial"].joined(crowded)
    return stamps


def _slope_angle(field: FloatArray) -> FloatArray:
    slope_y, slope_x = np.gradient(field)
    return np.asarray(np.arctan2(slope_y, slope_x), dtype=np.float32)


def _scatter(
    generator: np.random.Generator,
    plan: Plan,
    name: str,
    spacing_um: float,
    probability: FloatArray,
    angle: FloatArray,
    spread: float,
    jitter: float = 0.28,
) -> Stamps:
    x_px, y_px = jittered_grid(
        generator, width_px=plan.width_px, height_px=plan.height_px, spacing_px=spacing_um / plan.mpp, jitter=jitter
    )
    cell = y_px // CELL_PX, x_px // CELL_PX
    taken = generator.random(len(x_px)) < probability[cell]
    x_px, y_px = x_px[taken], y_px[taken]
    turned = angle[y_px // CELL_PX, x_px // CELL_PX] + spread * generator.uniform(-1, 1, len(x_px))
    variants = SHAPES[name].variants
    patch = orientation_index(turned) * variants + generator.integers(0, variants, len(x_px))
    return Stamps(x_px, y_px, patch)
