# SPDX-License-Identifier: Apache-2.0
"""Annotations of a planned slide, drawn as a pathologist in a hurry would: some coarse regions, well inside.

Only a part of each class is outlined. Outlines never cross into another class, so every label is right.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, label
from shapely.geometry import Polygon
from shapely.ops import unary_union
from skimage.measure import find_contours

from tral_monai.annotations.model import Annotation
from tral_monai.annotations.paper_colors import PAPER_COLORS
from tral_monai.data.generated.grid import CELL_PX, BoolArray
from tral_monai.data.generated.layout import Damage, Plan

TILE_UM = 32.0
"""Edge of a 128 px tile at 40x (0.25 micrometres per pixel)."""


@dataclass(frozen=True)
class _Subject:
    """One thing to outline: what the annotation is called, where it is, how much of it."""

    name: str
    mask: BoolArray
    margin_um: float
    radius_um: tuple[float, float]
    tiles: float


def outline_regions(
    generator: np.random.Generator, plan: Plan, tiles_per_class: Mapping[str, float], *, least_tiles: int = 0
) -> list[Annotation] | None:
    """Outline some regions of every class.

    Args:
        generator: Source of randomness.
        plan: The slide's plan.
        tiles_per_class: Area to outline, in tiles of 128 px at 40x, by class name.
        least_tiles: Whole tiles of the sampling grid that the outlines of each class must hold.

    Returns:
        Annotations with polygons in level-0 pixels, classes by name, and the kind of region in ``name`` (such as
        ``cautery``). Less area than asked for where a slide has no more of a class; None where a class has fewer than
        ``least_tiles``.
    """
    annotations = []
    for class_name, tiles in tiles_per_class.items():
        held = 0
        for subject in _subjects(plan, class_name, tiles):
            for cells in _regions(generator, plan, subject):
                # 0.8 where the sampler asks for 0.7: outlines are simplified after this count.
                held += whole_tiles(cells, TILE_UM / plan.cell_um, coverage=0.8)
                annotations.append(
                    Annotation(
                        geometry=_polygon(cells),
                        class_name=class_name,
                        name=subject.name,
                        color=PAPER_COLORS[class_name],
                        id=str(uuid.UUID(bytes=generator.bytes(16), version=4)),
                    )
                )
        if held < least_tiles:
            return None
    return annotations


def whole_tiles(mask: BoolArray, tile_cells: float, *, coverage: float = 0.7) -> int:
    """Number of grid tiles that a mask covers by more than ``coverage``.

    Args:
        mask: Cells.
        tile_cells: Edge of a tile in cells; the grid starts in the slide's corner.
        coverage: Least share of a tile, 0 to 1.
    """
    table = np.pad(np.cumsum(np.cumsum(mask, 0), 1), ((1, 0), (1, 0)))
    rows = np.rint(np.arange(0, mask.shape[0] - tile_cells, tile_cells)).astype(int)
    columns = np.rint(np.arange(0, mask.shape[1] - tile_cells, tile_cells)).astype(int)
    edge = round(tile_cells)
    covered = table[np.ix_(rows + edge, columns + edge)] - table[np.ix_(rows + edge, columns)]
    covered = covered - table[np.ix_(rows, columns + edge)] + table[np.ix_(rows, columns)]
    return int((covered > coverage * edge * edge).sum())


def _subjects(plan: Plan, class_name: str, tiles: float) -> list[_Subject]:
    mask = plan.class_mask(class_name)
    if class_name == "Damaged":
        kinds = ((Damage.CAUTERY, 0.50), (Damage.BLUR, 0.28), (Damage.FOLD, 0.22))
        return [
            _Subject(k.name.lower(), mask & (plan.damage == k), 7.0, (60, 100), tiles * share) for k, share in kinds
        ]
    if class_name == "Blood":
        return [_Subject("blood", mask, 4.0, (60, 90), tiles)]
    if class_name == "Stroma":
        inflamed, scar = plan.fields["inflamed"] > 0.7, plan.fields["hyaline_cells"] > 0
        parts = (
            ("stroma", mask & ~inflamed & ~scar, 0.58),
            ("inflamed", mask & inflamed, 0.27),
            ("scar", mask & scar, 0.15),
        )
        return [_Subject(name, part, 8.0, (70, 125), tiles * share) for name, part, share in parts]
    return [_Subject(class_name.lower(), mask, 8.0, (70, 125), tiles)]


def _regions(generator: np.random.Generator, plan: Plan, subject: _Subject) -> list[BoolArray]:
    """Masks of the regions, disjoint, each holding at least one tile of the grid."""
    margin = max(round(subject.margin_um / plan.cell_um), 1)
    free = binary_erosion(subject.mask, iterations=margin, border_value=0)
    tile_cells = (TILE_UM / plan.cell_um) ** 2
    regions: list[BoolArray] = []
    drawn = 0.0
    for _ in range(40):
        room = np.argwhere(free)
        if drawn >= subject.tiles or len(room) < tile_cells:
            break
        row, column = room[generator.integers(len(room))]
        waves = generator.uniform(0, 2 * np.pi, 3)
        wanted_um = np.sqrt(max(subject.tiles - drawn, 1.5) * TILE_UM**2 / np.pi) * 1.3
        radius_cells = min(float(generator.uniform(*subject.radius_um)), wanted_um) / plan.cell_um
        reach = int(1.4 * radius_cells) + 1
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = np.s_[top : row + reach + 1, left : column + reach + 1]
        y, x = np.indices(free[window].shape) - np.array([row - top, column - left])[:, None, None]
        bearing = np.arctan2(y, x)
        shape = 1 + sum(0.13 * np.cos((k + 1) * bearing + waves[k]) for k in range(3))
        parts, _ = label(free[window] & (np.hypot(x, y) < radius_cells * shape))
        region = np.zeros_like(free)
        region[window] = parts == parts[row - top, column - left]
        free &= ~region
        if whole_tiles(region, TILE_UM / plan.cell_um):
            regions.append(region)
            drawn += region.sum() / tile_cells
    return regions


def _polygon(cells: BoolArray) -> Polygon:
    """Outline of one connected mask in level-0 pixels, simplified as a mouse would draw it."""
    rings = []
    for contour in find_contours(np.pad(cells, 1).astype(np.float32), 0.5):
        ring = Polygon((contour[:, ::-1] - 0.5) * CELL_PX)
        if ring.area > 0:
            rings.append(ring)
    rings.sort(key=lambda ring: -ring.area)
    holes = [ring for ring in rings[1:] if ring.area > (2 * CELL_PX) ** 2]
    shape = rings[0].difference(unary_union(holes)) if holes else rings[0]
    shape = shape.simplify(CELL_PX * 0.9).buffer(0)
    if shape.geom_type == "MultiPolygon":
        shape = max(shape.geoms, key=lambda part: part.area)
    ring_lists = [shape.exterior, *shape.interiors]
    rounded = [[(round(x, 1), round(y, 1)) for x, y in ring.coords] for ring in ring_lists]
    return Polygon(rounded[0], rounded[1:])
