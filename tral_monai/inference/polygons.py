# SPDX-License-Identifier: Apache-2.0
"""Regions of equal class in a class map, as polygons whose vertices are corners of tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.outlines import Outlines, region_outlines


@dataclasses.dataclass(frozen=True)
class ClassRegion:
    """One connected region of equal class.

    Attributes:
        geometry: valid polygon with integer vertices, level-0 px.
        value: the class map's value.
        tiles: number of cells.
        label: the region's number in ``label_regions``'s map.
    """

    geometry: shapely.Polygon
    value: int
    tiles: int
    label: int


def label_regions(
    class_index: npt.NDArray[np.uint8], values: Sequence[int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Number the connected regions of a class map; cells that meet only at a corner are not connected.

    Args:
        class_index: (rows, columns) class map.
        values: values to number; every other cell gets 0.

    Returns:
        (rows, columns) int32 region numbers from 1, and (regions + 1,) the class value of each number (entry 0 unused).
    """
    labels = np.zeros(class_index.shape, dtype=np.int32)
    value_of: list[npt.NDArray[np.uint8]] = [np.zeros(1, dtype=np.uint8)]
    total = 0
    for value in values:
        numbered, count = ndimage.label(class_index == value)
        labels += np.where(numbered > 0, numbered + total, 0).astype(np.int32)
        value_of.append(np.full(count, value, dtype=np.uint8))
        total += count
    return labels, np.concatenate(value_of)


def class_regions(class_index: npt.NDArray[np.uint8], grid: MapGrid, values: Sequence[int]) -> list[ClassRegion]:
    """Turn a class map into polygons, one per connected region.

    Args:
        class_index: (rows, columns) class map.
        grid: where its cells lie; its ``shape`` is the map's.
        values: class values to turn into polygons.

    Returns:
        Regions by value, then by their first cell in reading order.

    Raises:
        ValueError: the map's shape is not the grid's.
    """
    labels, value_of = label_regions(class_index, values)
    tiles = np.bincount(labels.ravel(), minlength=value_of.size)
    return [
        ClassRegion(polygon, int(value_of[label]), int(tiles[label]), label)
        for label, polygon in enumerate(polygons_of(region_outlines(labels, grid)), start=1)
    ]


def polygons_of(outlines: Outlines) -> npt.NDArray[np.object_]:
    """Turn outlines into polygons.

    Args:
        outlines: of n regions.

    Returns:
        (n,) valid ``shapely.Polygon`` with integer vertices, level-0 px.
    """
    rings = outlines.first_corner.size - 1
    if not rings:
        return np.empty(0, dtype=object)
    linear_rings = shapely.linearrings(
        np.stack([outlines.x, outlines.y], axis=1).astype(np.float64),
        indices=np.repeat(np.arange(rings), np.diff(outlines.first_corner)),
    )
    first = outlines.first_ring
    polygons: npt.NDArray[np.object_] = shapely.polygons(linear_rings[first[:-1]])
    for region in np.flatnonzero(np.diff(first) > 1):
        shell, *holes = linear_rings[first[region] : first[region + 1]]
        polygons[region] = shapely.Polygon(shell, holes)
    return polygons
