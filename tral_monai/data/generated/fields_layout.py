# SPDX-License-Identifier: Apache-2.0
"""Where the neighbourhoods and nuclei of a generated field lie."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tral_monai.data.generated.cells import jittered_grid
from tral_monai.data.generated.fields_nuclei import CLASSES
from tral_monai.data.generated.grid import CELL_PX, FloatArray, signed_distance, smooth_noise
from tral_monai.data.generated.textures import TEXEL_UM

MARGIN_UM = 14.0  # nuclei are also placed this far outside of the field, so that its edges cut some


@dataclass(frozen=True)
class Zone:
    """A neighbourhood.

    Attributes:
        spacing_um: Distance between neighbouring nuclei.
        taken: Probability that a site is taken.
        mix: Relative frequency of the classes, in the order of ``CLASSES``.
        even: How alike the fields are in this mix: concentration of a Dirichlet distribution.
    """

    spacing_um: float
    taken: float
    mix: tuple[float, float, float, float, float, float, float]
    even: float = 60.0


# Order: a zone hides the ones before it.            tumor lymph stroma plasma mitot macro other
ZONES: dict[str, Zone] = {
    "stroma": Zone(11.0, 0.64, (0.00, 0.09, 0.80, 0.03, 0.00, 0.05, 0.03)),
    "oedema": Zone(16.0, 0.45, (0.00, 0.15, 0.62, 0.05, 0.00, 0.12, 0.06), even=20),
    "fat": Zone(26.0, 0.00, (0.00, 0.00, 1.00, 0.00, 0.00, 0.00, 0.00)),
    "plasma": Zone(7.2, 0.92, (0.00, 0.13, 0.09, 0.57, 0.00, 0.10, 0.11), even=22),
    "histiocytic": Zone(9.4, 0.94, (0.00, 0.08, 0.07, 0.09, 0.00, 0.60, 0.16), even=22),
    "purulent": Zone(6.3, 0.88, (0.00, 0.05, 0.03, 0.06, 0.00, 0.13, 0.73), even=30),
    "lymphoid": Zone(6.1, 0.95, (0.00, 0.89, 0.02, 0.04, 0.005, 0.04, 0.005)),
    "tumour": Zone(8.6, 0.96, (0.91, 0.04, 0.00, 0.00, 0.02, 0.01, 0.02)),
}


@dataclass(frozen=True)
class Kind:
    """A kind of field.

    Attributes:
        weight: How often it occurs.
        zones: Least and greatest share of the field's area for each zone; the rest is stroma.
        proliferation: Least and greatest share of mitoses in the tumour; as many again are apoptotic.
    """

    weight: float
    zones: dict[str, tuple[float, float]] = field(default_factory=dict)
    proliferation: tuple[float, float] = (0.005, 0.03)


KINDS: dict[str, Kind] = {
    "solid tumour": Kind(0.16, {"tumour": (0.70, 0.98)}),
    "proliferating tumour": Kind(0.09, {"tumour": (0.60, 0.95)}, proliferation=(0.09, 0.20)),
    "tumour nests": Kind(0.14, {"tumour": (0.25, 0.55), "oedema": (0.0, 0.2)}),
    "invasive front": Kind(0.10, {"tumour": (0.25, 0.45), "plasma": (0.1, 0.35), "lymphoid": (0.0, 0.25)}),
    "lymphoid aggregate": Kind(0.09, {"lymphoid": (0.35, 0.85), "plasma": (0.0, 0.15)}),
    "plasma cells": Kind(0.12, {"plasma": (0.55, 0.98), "lymphoid": (0.0, 0.1)}),
    "histiocytes": Kind(0.08, {"histiocytic": (0.5, 0.95), "purulent": (0.0, 0.15)}),
    "abscess": Kind(0.08, {"purulent": (0.4, 0.85), "histiocytic": (0.05, 0.3)}),
    "stroma": Kind(0.07, {"plasma": (0.0, 0.12), "oedema": (0.0, 0.2)}),
    "sparse": Kind(0.06, {"oedema": (0.4, 0.8), "fat": (0.0, 0.6)}),
}

# Half the distance at which two cells touch, in um: a cell closer to an earlier one is left out.
_REACH_UM = {
    "tumor": 4.0,
    "lymphocyte": 2.8,
    "stromal": 3.2,
    "plasma": 3.5,
    "mitotic": 4.7,
    "macrophage": 4.6,
    "other": 3.3,
}


@dataclass(frozen=True)
class Nuclei:
    """The nuclei of a field, also those outside of it whose edge may reach in.

    Attributes:
        x_px: Column of each centre, int64 (n,).
        y_px: Row of each centre.
        class_index: Position of its class in ``CLASSES``.
        angle: Direction of its long axis in radians, float32 (n,).
    """

    x_px: NDArray[np.int64]
    y_px: NDArray[np.int64]
    class_index: NDArray[np.int64]
    angle: FloatArray


@dataclass(frozen=True)
class FieldPlan:
    """The layout of one field.

    Attributes:
        kind: Key of ``KINDS``.
        size_px: Edge of the field.
        mpp: Micrometres per pixel.
        fields: Coarse fields (cells, cells) by name: ``<zone>_cells`` are signed distances to the zones' outlines.
        fibre_angle: Direction of the fibres in each cell, radians.
        lay_angle: Mean direction of the fibres.
        nuclei: The nuclei.
        nuclear_size: Factor on the size of tumour nuclei.
    """

    kind: str
    size_px: int
    mpp: float
    fields: dict[str, FloatArray]
    fibre_angle: FloatArray
    lay_angle: float
    nuclei: Nuclei
    nuclear_size: float


def plan_field(
    generator: np.random.Generator, kind: str, *, size_px: int, mpp: float, nuclear_size: float = 1.0
) -> FieldPlan:
    """Lay out the neighbourhoods of one field and place its nuclei.

    Args:
        generator: Source of randomness.
        kind: Key of ``KINDS``.
        size_px: Edge of the field in pixels.
        mpp: Micrometres per pixel.
        nuclear_size: The patient's factor on the size of tumour nuclei.
    """
    drawing, placing = generator.spawn(2)
    cell_um = CELL_PX * mpp
    cells = -(-size_px // CELL_PX)
    shape = (cells, cells)

    def noise(length_um: float) -> FloatArray:
        return smooth_noise(drawing, shape, length_um / cell_um)

    nuclear_size *= float(drawing.uniform(0.90, 1.12))
    lay_angle = float(drawing.uniform(0, np.pi))
    fields = {
        "fibre_u": 30 * noise(34),  # texels: how far the fibres stray along and across their mean direction
        "fibre_v": 34 * noise(26) + 9 * noise(11),
        "density": np.clip(0.5 + 0.45 * noise(26) + float(drawing.uniform(-0.35, 0.35)), 0, 1),
        "crowd": noise(16),
        "cleft": noise(9),
        "tone": noise(40),
    }
    left = np.ones(shape, bool)
    for name in reversed(ZONES):
        low, high = KINDS[kind].zones.get(name, (0.0, 0.0))
        mask = left.copy() if name == "stroma" else np.zeros(shape, bool)
        share = float(drawing.uniform(low, high))
        grain_um = 15.0 if name == "tumour" and kind in ("tumour nests", "invasive front") else 24.0
        surface = noise(grain_um) + 0.35 * noise(grain_um / 2.5)
        if name != "stroma" and share > 0.02 and left.any():
            share_of_left = min(share * left.size / left.sum(), 1.0)
            mask = left & (surface >= np.quantile(surface[left], 1 - share_of_left))
        fields[f"{name}_cells"] = signed_distance(mask)
        left &= ~mask
    lumen = drawing.random() < 0.4
    deep = fields["tumour_cells"] * cell_um > 9
    hole = deep & (fields["cleft"] > 1.5) if lumen else np.zeros(shape, bool)
    fields["lumen_cells"] = signed_distance(hole)
    angle = fibre_angle(fields, lay_angle, cell_um=cell_um)
    nuclei = _place(placing, kind, fields, angle, size_px=size_px, mpp=mpp, nuclear_size=nuclear_size)
    return FieldPlan(kind, size_px, mpp, fields, angle, lay_angle, nuclei, nuclear_size)


def zone_index(fields: dict[str, FloatArray]) -> NDArray[np.int64]:
    """Index into ``ZONES`` of the zone that each cell belongs to."""
    return np.argmax(np.stack([fields[f"{name}_cells"] for name in ZONES]), axis=0).astype(np.int64)


def draw_kinds(generator: np.random.Generator, count: int) -> list[str]:
    """Kinds of ``count`` fields in the proportions of their weights, each within one field of its share, shuffled."""
    names = list(KINDS)
    share = np.array([KINDS[name].weight for name in names])
    share = share / share.sum() * count
    whole = np.floor(share).astype(np.int64)
    rest = np.argsort(-(share - whole), kind="stable")[: count - int(whole.sum())]
    whole[rest] += 1
    kinds = [name for name, times in zip(names, whole, strict=True) for _ in range(times)]
    return [kinds[i] for i in generator.permutation(count)]


def fibre_angle(fields: dict[str, FloatArray], lay_angle: float, *, cell_um: float) -> FloatArray:
    """Direction of the fibres in each cell, radians: they run where the coordinate across them stays the same.

    Args:
        fields: ``fibre_v``, in texels.
        lay_angle: Mean direction.
        cell_um: Edge of a cell.
    """
    texels_per_cell = cell_um / TEXEL_UM
    slope_y, slope_x = np.gradient(fields["fibre_v"] / np.float32(texels_per_cell))
    slope_x, slope_y = slope_x - np.sin(lay_angle), slope_y + np.cos(lay_angle)
    return np.asarray(np.arctan2(-slope_x, slope_y), dtype=np.float32)


def _place(
    generator: np.random.Generator,
    kind: str,
    fields: dict[str, FloatArray],
    fibres: FloatArray,
    *,
    size_px: int,
    mpp: float,
    nuclear_size: float,
) -> Nuclei:
    zones, classes = zone_index(fields), list(CLASSES)
    margin = int(MARGIN_UM / mpp)
    proliferation = float(generator.uniform(*KINDS[kind].proliferation))
    columns: list[NDArray[np.float64]] = []
    for index, (name, zone) in enumerate(ZONES.items()):
        mix = np.asarray(zone.mix)
        if name == "tumour":
            mix = mix + np.array([0, 0, 0, 0, proliferation, 0, 0.7 * proliferation])
        mix = np.where(mix > 0, generator.gamma(np.maximum(mix / mix.sum() * zone.even, 1e-3)), 0)
        mix = mix / max(mix.sum(), 1e-9)
        spacing = zone.spacing_um * (nuclear_size if name == "tumour" else 1) * float(generator.uniform(0.93, 1.10))
        x, y = jittered_grid(
            generator,
            width_px=size_px + 2 * margin,
            height_px=size_px + 2 * margin,
            spacing_px=spacing / mpp,
            jitter=0.30,
        )
        chosen = generator.choice(len(classes), len(x), p=mix) if mix.sum() > 0.5 else np.zeros(len(x), np.int64)
        accepted, chance = generator.random(len(x)), generator.random(len(x))
        x, y = x - margin, y - margin
        row, column = (np.clip(axis // CELL_PX, 0, len(zones) - 1) for axis in (y, x))
        crowd = 1 + 0.22 * np.tanh(fields["crowd"][row, column])
        keep = (
            (zones[row, column] == index) & (accepted < zone.taken * crowd) & (fields["lumen_cells"][row, column] < 0)
        )
        columns.append(np.stack([x, y, chosen, chance])[:, keep])
    x, y, chosen, chance = np.concatenate(columns, axis=1)
    order = np.argsort(chance, kind="stable")
    x_px, y_px, class_index = (part[order].astype(np.int64) for part in (x, y, chosen))
    reach = np.array([_REACH_UM[name] for name in classes])[class_index] / mpp
    keep = _without_collisions(x_px, y_px, reach)
    x_px, y_px, class_index = x_px[keep], y_px[keep], class_index[keep]
    along = fibres[np.clip(y_px // CELL_PX, 0, len(zones) - 1), np.clip(x_px // CELL_PX, 0, len(zones) - 1)]
    along = along + generator.normal(0, 0.16, len(x_px))
    free = generator.uniform(0, 2 * np.pi, len(x_px))
    angle = np.where(class_index == classes.index("stromal"), along, free).astype(np.float32)
    return Nuclei(x_px, y_px, class_index, angle)


def _without_collisions(
    x_px: NDArray[np.int64], y_px: NDArray[np.int64], reach_px: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Indices, in order, of the cells that touch no cell kept before them by more than a little."""
    keep: list[int] = []
    kept_x, kept_y, kept_reach = (np.empty(len(x_px)) for _ in range(3))
    for i in range(len(x_px)):
        n = len(keep)
        apart = np.hypot(kept_x[:n] - x_px[i], kept_y[:n] - y_px[i])
        if (apart >= 0.84 * (kept_reach[:n] + reach_px[i])).all():
            kept_x[n], kept_y[n], kept_reach[n] = x_px[i], y_px[i], reach_px[i]
            keep.append(i)
    return np.asarray(keep, dtype=np.int64)
