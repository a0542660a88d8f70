# SPDX-License-Identifier: Apache-2.0
"""From a planned field of nuclei to its pixels and the nuclei's boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from tral_monai.data.generated.fields_layout import FieldPlan
from tral_monai.data.generated.fields_nuclei import CLASSES, Drawn, draw_cell
from tral_monai.data.generated.grid import CELL_PX, FieldStack, FloatArray, Frame
from tral_monai.data.generated.hospitals import Hospital
from tral_monai.data.generated.nuclei import orientation_index, shared_patches, stamp
from tral_monai.data.generated.render import Patient
from tral_monai.data.generated.textures import TEXEL_UM, look_up, texture_bank

MIN_VISIBLE = 0.3  # share of a nucleus that must lie in the field for it to be annotated
MIN_BOX_PX = 4


@dataclass(frozen=True)
class RenderedField:
    """One field as it is written.

    Attributes:
        image: uint8 (size_px, size_px, 3).
        boxes_px: xmin, ymin, xmax, ymax of the visible part of each nucleus, int64 (n, 4); the maximum is exclusive.
        areas_px: Visible pixels of each nucleus, int64 (n,).
        class_names: (n,) names of ``CLASSES``.
    """

    image: NDArray[np.uint8]
    boxes_px: NDArray[np.int64]
    areas_px: NDArray[np.int64]
    class_names: tuple[str, ...]


@dataclass
class _Canvas:
    hematoxylin: FloatArray
    eosin: FloatArray
    pigment: FloatArray
    opening: FloatArray  # 1 where nothing lies on the glass


def render_field(
    generator: np.random.Generator, plan: FieldPlan, hospital: Hospital, patient: Patient, *, seed: int
) -> RenderedField:
    """Draw a field.

    Args:
        generator: Source of randomness of this field.
        plan: Its layout.
        hospital: Stain, optics and camera; the field's mpp is the plan's.
        patient: The patient's own stain.
        seed: Seed of the data set, whose fields share textures.
    """
    drawing, scattering, camera = generator.spawn(3)
    canvas = _background(plan, seed)
    _red_cells(scattering, plan, canvas, seed)
    nuclei, names = plan.nuclei, list(CLASSES)
    cells: list[Drawn] = []
    for index, angle in zip(nuclei.class_index, nuclei.angle, strict=True):
        name = names[int(index)]
        factor = plan.nuclear_size if name in ("tumor", "mitotic") else 1.0
        cells.append(draw_cell(drawing, name, angle=float(angle), mpp=plan.mpp, seed=seed, size_factor=factor))
    for cell, x_px, y_px in zip(cells, nuclei.x_px, nuclei.y_px, strict=True):
        lay_over(canvas.eosin, cell.body_eosin, cell.body, int(x_px), int(y_px))
        lay_over(canvas.hematoxylin, cell.body_hematoxylin, cell.body, int(x_px), int(y_px))
        lay_over(canvas.opening, np.zeros_like(cell.body), cell.body, int(x_px), int(y_px))
    boxes, areas, shown = [], [], []
    for cell, x_px, y_px, index in zip(cells, nuclei.x_px, nuclei.y_px, nuclei.class_index, strict=True):
        lay_over(canvas.hematoxylin, cell.stain, cell.cover, int(x_px), int(y_px))
        lay_over(canvas.eosin, np.full_like(cell.stain, 0.10), 0.75 * cell.cover, int(x_px), int(y_px))
        lay_over(canvas.opening, np.zeros_like(cell.stain), cell.cover, int(x_px), int(y_px))
        found = visible_box(cell.cover > 0.5, int(x_px), int(y_px), plan.size_px)
        if found is not None:
            boxes.append(found[0])
            areas.append(found[1])
            shown.append(names[int(index)])
    image = _photograph(camera, canvas, plan, hospital, patient)
    return RenderedField(
        image, np.array(boxes, np.int64).reshape(-1, 4), np.array(areas, np.int64).reshape(-1), tuple(shown)
    )


def visible_box(
    mask: NDArray[np.bool_], x_px: int, y_px: int, size_px: int
) -> tuple[tuple[int, int, int, int], int] | None:
    """Box and area of the part of a nucleus that lies in the field.

    Args:
        mask: (n, n) with odd n, the nucleus.
        x_px: Column of the mask's centre in the field; may lie outside.
        y_px: Row of it.
        size_px: Edge of the field.

    Returns:
        The box (xmin, ymin, xmax, ymax; the maximum is exclusive) and the visible pixels; None where less than
        ``MIN_VISIBLE`` of the nucleus is seen, or the box is less than ``MIN_BOX_PX`` wide or high.
    """
    half = mask.shape[0] // 2
    rows, columns = np.nonzero(mask)
    y, x = rows + y_px - half, columns + x_px - half
    inside = (x >= 0) & (y >= 0) & (x < size_px) & (y < size_px)
    if inside.sum() < max(MIN_VISIBLE * len(x), 1):
        return None
    x, y = x[inside], y[inside]
    box = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
    if min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_PX:
        return None
    return box, int(inside.sum())


def lay_over(canvas: FloatArray, patch: FloatArray, opacity: FloatArray, x_px: int, y_px: int) -> None:
    """Lay a patch over a canvas; parts outside of the canvas are cut.

    Args:
        canvas: (h, w), changed in place.
        patch: (n, n) with odd n, the new values.
        opacity: (n, n), 0 keeps the canvas, 1 takes the patch.
        x_px: Column of the patch's centre on the canvas; may lie outside.
        y_px: Row of it.
    """
    half = patch.shape[0] // 2
    top, left = y_px - half, x_px - half
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + patch.shape[0], canvas.shape[0]), min(left + patch.shape[1], canvas.shape[1])
    if y0 < y1 and x0 < x1:
        window = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        part = canvas[y0:y1, x0:x1]
        part += opacity[window] * (patch[window] - part)


def _inside(distance_cells: FloatArray, edge_px: float) -> FloatArray:
    """0 outside, 1 inside of an outline, with a ramp ``edge_px`` wide."""
    return np.clip(distance_cells * np.float32(CELL_PX / edge_px) + np.float32(0.5), 0, 1)


def _background(plan: FieldPlan, seed: int) -> _Canvas:
    """Everything but cells: fibres, cytoplasm of the tumour, fluid, fat, clefts."""
    size = plan.size_px
    frame = Frame(0, 0, size, size)
    fields = FieldStack(plan.fields).on_block(frame)
    textures = texture_bank(seed)
    texels = np.float32(plan.mpp / TEXEL_UM)
    axis = np.arange(size, dtype=np.float32) * texels
    x, y = axis[None, :], axis[:, None]
    cos, sin = np.float32(np.cos(plan.lay_angle)), np.float32(np.sin(plan.lay_angle))
    u, v = fields["fibre_u"] + (x * cos + y * sin), fields["fibre_v"] + (y * cos - x * sin)
    grain = look_up(textures["grain"], np.broadcast_to(x, u.shape), np.broadcast_to(y, u.shape))
    loose, fine = look_up(textures["loose"], u, v), look_up(textures["muscle"], u, v)
    strands = np.clip((loose - 0.34) * 2.0, 0, 1)

    dense = fields["density"]
    eosin = 0.05 + 0.42 * strands
    eosin += dense * (0.22 + 0.26 * fine + 0.10 * loose - eosin)
    hematoxylin = 0.04 + 0.05 * grain + 0.03 * strands
    opening = np.clip(1.15 - 3.2 * loose, 0, 1) * (1 - 0.85 * dense)  # gaps between strands

    def cover(zone: str, zone_eosin: FloatArray, zone_hematoxylin: FloatArray, gaps: FloatArray) -> None:
        weight = _inside(fields[f"{zone}_cells"], 14)
        if weight.max() <= 0:
            return
        for canvas, value in ((eosin, zone_eosin), (hematoxylin, zone_hematoxylin), (opening, gaps)):
            canvas += weight * (value - canvas)

    nothing = np.zeros_like(eosin)
    cover(
        "oedema",
        0.04 + 0.30 * np.clip((loose - 0.62) * 3, 0, 1),
        0.03 + 0.03 * grain,
        0.8 * (loose < 0.6).astype(np.float32),
    )
    cover("plasma", 0.08 + 0.20 * strands + 0.08 * grain, 0.05 + 0.07 * grain, 0.7 * opening)
    cover("histiocytic", 0.12 + 0.14 * grain, 0.05 + 0.06 * grain, 0.4 * opening)
    cover(
        "purulent",
        0.16 + 0.30 * (grain * fine) + 0.1 * grain,
        0.06 + 0.10 * grain,
        0.3 * (grain < 0.25).astype(np.float32),
    )
    cover("lymphoid", 0.08 + 0.10 * loose + 0.06 * grain, 0.09 + 0.09 * grain, 0.25 * (grain < 0.3).astype(np.float32))
    cover("fat", nothing, nothing + 0.01, np.ones_like(eosin))
    canvas = _Canvas(hematoxylin, eosin, nothing.copy(), opening)
    _fat_walls(plan, canvas, fields)
    _tumour(plan, canvas, fields, grain, fine)
    tone = 1 + np.float32(0.07) * fields["tone"]
    canvas.eosin *= tone
    canvas.hematoxylin *= tone
    return canvas


def _tumour(
    plan: FieldPlan, canvas: _Canvas, fields: Mapping[str, FloatArray], grain: FloatArray, fine: FloatArray
) -> None:
    """Cytoplasm cell by cell: each has its own tone and a membrane where it meets the next one."""
    distance = fields["tumour_cells"]
    weight = _inside(distance, 7)
    if weight.max() <= 0:
        return
    nuclei = plan.nuclei
    x, y = np.clip(nuclei.x_px, 0, plan.size_px - 1), np.clip(nuclei.y_px, 0, plan.size_px - 1)
    tone, membrane = cell_territories(x, y, plan.size_px, plan.mpp)
    eosin = 0.17 + 0.09 * grain + 0.05 * fine + 0.10 * tone + 0.13 * membrane
    hematoxylin = 0.13 + 0.09 * grain + 0.07 * tone
    um = distance * np.float32(CELL_PX * plan.mpp)
    # Tumour shrinks from its stroma when it is processed, here and there.
    cleft = np.clip((fields["cleft"] - 0.55) * 3, 0, 1) * np.exp(-(((um + 1.5) / 1.4) ** 2))
    lumen = _inside(fields["lumen_cells"], 8)
    brush = np.exp(-(((fields["lumen_cells"] * np.float32(CELL_PX * plan.mpp) + 1.6) / 1.3) ** 2))
    for part, value in ((canvas.eosin, eosin + 0.22 * brush), (canvas.hematoxylin, hematoxylin)):
        part += weight * (value - part)
        part *= 1 - 0.95 * lumen
    canvas.opening *= 1 - weight
    np.maximum(canvas.opening, np.maximum(0.95 * cleft, lumen), out=canvas.opening)


def cell_territories(
    x_px: NDArray[np.int64], y_px: NDArray[np.int64], size_px: int, mpp: float
) -> tuple[FloatArray, FloatArray]:
    """What belongs to which cell: the pixels that are nearest to its nucleus.

    Args:
        x_px: Column of each nucleus, inside of the field.
        y_px: Row of each nucleus.
        size_px: Edge of the field.
        mpp: Micrometres per pixel.

    Returns:
        A tone for each cell, -1 to 1, and the membranes between cells, 0 to 1; float32 (size_px, size_px).
    """
    seeds = np.ones((size_px, size_px), bool)
    seeds[y_px, x_px] = False
    if seeds.all():
        nothing = np.zeros(seeds.shape, np.float32)
        return nothing, nothing
    row, column = distance_transform_edt(seeds, return_distances=False, return_indices=True)
    owner = row.astype(np.int64) * size_px + column
    # A fixed scramble of the nucleus' place: the tone needs no random numbers of its own.
    tone = ((owner * 2654435761) % 1009).astype(np.float32) / np.float32(504.0) - 1
    edge = np.zeros((size_px, size_px), np.float32)
    edge[:, 1:] = owner[:, 1:] != owner[:, :-1]
    edge[1:] = np.maximum(edge[1:], owner[1:] != owner[:-1])
    edge = gaussian_filter(edge, 0.32 / mpp)
    tone = gaussian_filter(tone, 0.4 / mpp)
    return tone, edge / max(float(edge.max()), 1e-6)


def _fat_walls(plan: FieldPlan, canvas: _Canvas, fields: Mapping[str, FloatArray]) -> None:
    """Thin walls between fat cells, whose content the processing dissolves."""
    weight = _inside(fields["fat_cells"], 6)
    if weight.max() <= 0:
        return
    spacing_px = 46 / plan.mpp
    shift = plan.lay_angle / np.pi * spacing_px
    points = np.arange(-spacing_px, plan.size_px + 2 * spacing_px, spacing_px)
    x, y = np.meshgrid(points + shift, points)
    x = x + spacing_px * (0.5 * (np.arange(len(points)) % 2)[:, None] + 0.22 * np.sin(5.1 * y / spacing_px + x))
    y = y + spacing_px * 0.22 * np.sin(3.7 * x / spacing_px + 1)
    inside = (x >= 0) & (y >= 0) & (x < plan.size_px) & (y < plan.size_px)
    wall = cell_territories(x[inside].astype(np.int64), y[inside].astype(np.int64), plan.size_px, plan.mpp)[1]
    rim = np.exp(-((fields["fat_cells"] * np.float32(CELL_PX * plan.mpp) / 1.6) ** 2))
    wall = np.maximum(np.clip(1.5 * wall, 0, 1), rim) * weight
    canvas.eosin += wall * (0.34 - canvas.eosin)
    canvas.opening *= 1 - wall


def _red_cells(generator: np.random.Generator, plan: FieldPlan, canvas: _Canvas, seed: int) -> None:
    """A few capillaries with red cells; they have no nucleus and are not annotated."""
    patches = shared_patches(seed, "red_cell", plan.mpp)[0]
    free = (plan.fields["tumour_cells"] < -1.5) & (plan.fields["fat_cells"] < -1)
    places = np.argwhere(free)
    for _ in range(int(generator.poisson(1.6)) if len(places) else 0):
        row, column = places[int(generator.integers(len(places)))]
        angle = float(plan.fibre_angle[row, column])
        count = int(generator.integers(3, 9))
        along = (np.arange(count) - count / 2) * 5.6 / plan.mpp + generator.normal(0, 1.0 / plan.mpp, count)
        aside = generator.normal(0, 1.6 / plan.mpp, count)
        x = column * CELL_PX + along * np.cos(angle) - aside * np.sin(angle)
        y = row * CELL_PX + along * np.sin(angle) + aside * np.cos(angle)
        variants = len(patches) // 16
        which = orientation_index(generator.uniform(0, np.pi, count).astype(np.float32)) * variants
        for x_px, y_px, index in zip(np.rint(x), np.rint(y), which, strict=True):
            patch = patches[int(index) + int(generator.integers(variants))]
            stamp(canvas.pigment, 0.7 * patch, int(x_px), int(y_px))
            stamp(canvas.eosin, patch, int(x_px), int(y_px))
            lay_over(canvas.opening, np.zeros_like(patch), np.clip(4 * patch, 0, 1), int(x_px), int(y_px))


def _photograph(
    generator: np.random.Generator, canvas: _Canvas, plan: FieldPlan, hospital: Hospital, patient: Patient
) -> NDArray[np.uint8]:
    """Beer-Lambert light through the stains, the scanner's optics and its camera."""
    there = 1 - np.clip(canvas.opening, 0, 1)
    thickness = there * np.float32(generator.uniform(0.92, 1.10))
    amounts = (
        canvas.hematoxylin * np.float32(hospital.hematoxylin_strength * patient.hematoxylin),
        canvas.eosin * np.float32(1.15 * hospital.eosin_strength * patient.eosin),
        canvas.pigment,
    )
    stains = np.array([hospital.hematoxylin, hospital.eosin, hospital.blood_pigment], np.float32)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    blur_um = float(generator.uniform(0.16, 0.34)) + (0.22 if generator.random() < 0.08 else 0.0)  # focus varies
    image = np.empty((plan.size_px, plan.size_px, 3), np.float32)
    for channel in range(3):
        density = np.zeros_like(canvas.eosin)
        for amount, stain in zip(amounts, stains, strict=True):
            density += amount * stain[channel]
        light = np.exp(np.float32(-np.log(10)) * density * thickness) * np.float32(hospital.glass[channel])
        image[..., channel] = gaussian_filter(light, blur_um / plan.mpp, truncate=3)
    tap = np.float32(hospital.optics_taps)
    image[:, 1:-1] = (1 - 2 * tap) * image[:, 1:-1] + tap * (image[:, :-2] + image[:, 2:])
    image[1:-1] = (1 - 2 * tap) * image[1:-1] + tap * (image[:-2] + image[2:])
    image += np.float32(hospital.noise_levels) * generator.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
