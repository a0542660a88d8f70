# SPDX-License-Identifier: Apache-2.0
"""The classes of a tissue map as QuPath objects: one polygon per connected region, or one square per tile."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tral_monai.annotations.model import Annotation
from tral_monai.errors import ConfigError
from tral_monai.inference.geojson_text import box_ring, feature, properties, write_features
from tral_monai.inference.outlines import Outlines, region_outlines
from tral_monai.inference.palette import class_colours, given_colours
from tral_monai.inference.polygons import label_regions, polygons_of
from tral_monai.inference.slide_writer import SlideWriter
from tral_monai.inference.tissue_map import TissueMap

_OBJECT_TYPES = ("annotation", "detection")


_CHUNK = 2_000  # regions turned into text at once


@dataclasses.dataclass(frozen=True)
class _Regions:
    """The connected regions of every class but the background, n of them: what both forms of output need."""

    outlines: Outlines
    values: list[int]
    area_mm2: list[float]
    tiles: list[int]
    probability: list[float]

    @classmethod
    def of(cls, tissue: TissueMap) -> _Regions:
        values = [value for value in range(len(tissue.classes)) if value != tissue.classes.background]
        labels, value_of = label_regions(tissue.class_index, values)
        outlines = region_outlines(labels, tissue.grid)
        flat = labels.ravel()
        tiles = np.bincount(flat, minlength=value_of.size)
        confidence = np.nan_to_num(tissue.confidence.ravel(), nan=0.0)
        probability = np.bincount(flat, weights=confidence, minlength=value_of.size) / np.maximum(tiles, 1)
        mm2_per_px = tissue.mpp_xy[0] * tissue.mpp_xy[1] / 1e6
        return cls(
            outlines,
            value_of[1:].tolist(),
            (outlines.area_px * mm2_per_px).tolist(),
            tiles[1:].tolist(),
            probability[1:].round(4).tolist(),
        )


def class_annotations(
    tissue: TissueMap,
    *,
    colours: Mapping[str, Sequence[int]] | None = None,
    object_type: str = "annotation",
) -> Iterator[Annotation]:
    """Regions of every class but the background, largest class values last.

    A region is a set of tiles of one class that touch along sides. Each has the measurements ``area_mm2``, ``tiles``
    and, where the model looked at it, ``mean_probability`` of the class shown.

    Args:
        tissue: the map.
        colours: class colours that win over the built-in ones.
        object_type: QuPath's type of the objects.

    Yields:
        One annotation per region, its vertices whole level-0 pixels on the grid of tiles.
    """
    names = tissue.classes.names
    palette = class_colours(names, colours)
    regions = _Regions.of(tissue)
    polygons = polygons_of(regions.outlines)
    columns = zip(polygons, regions.values, regions.area_mm2, regions.tiles, regions.probability, strict=True)
    for polygon, value, area_mm2, tiles, probability in columns:
        measurements = {"area_mm2": area_mm2, "tiles": tiles}
        if value != tissue.classes.not_analysed:
            measurements["mean_probability"] = probability
        yield Annotation(
            geometry=polygon,
            class_name=names[value],
            color=palette[names[value]],
            object_type=object_type,
            properties={"measurements": measurements},
        )


def region_features(
    tissue: TissueMap, *, colours: Mapping[str, Sequence[int]] | None = None, object_type: str = "annotation"
) -> Iterator[str]:
    """The text of every region's GeoJSON feature: the same regions as :func:`class_annotations`, several times faster.

    Args:
        tissue: the map.
        colours: class colours that win over the built-in ones.
        object_type: QuPath's type of the objects.

    Yields:
        One feature per region.
    """
    heads = _heads(tissue, colours, object_type)
    regions = _Regions.of(tissue)
    outlines = regions.outlines
    for start in range(0, len(regions.values), _CHUNK):
        stop = min(start + _CHUNK, len(regions.values))
        first_ring = outlines.first_ring[start : stop + 1]
        ends = outlines.first_corner[first_ring[0] : first_ring[-1] + 1]
        part = slice(ends[0], ends[-1])
        corners = [f"[{x},{y}]" for x, y in zip(outlines.x[part].tolist(), outlines.y[part].tolist(), strict=True)]
        ends = (ends - ends[0]).tolist()
        rings = [f"[{','.join(corners[begin:end])},{corners[begin]}]" for begin, end in itertools.pairwise(ends)]
        first = (first_ring - first_ring[0]).tolist()
        for region, ring, next_ring in zip(range(start, stop), first[:-1], first[1:], strict=True):
            value = regions.values[region]
            measurements = f'"area_mm2":{regions.area_mm2[region]!r},"tiles":{regions.tiles[region]}'
            if value != tissue.classes.not_analysed:
                measurements += f',"mean_probability":{regions.probability[region]!r}'
            yield feature(",".join(rings[ring:next_ring]), heads[value], measurements)


def tile_features(
    tissue: TissueMap, *, colours: Mapping[str, Sequence[int]] | None = None, object_type: str = "detection"
) -> Iterator[str]:
    """The text of one GeoJSON feature per tile that is not background, row by row.

    Args:
        tissue: the map.
        colours: class colours that win over the built-in ones.
        object_type: QuPath's type of the objects.

    Yields:
        Squares with the measurement ``probability`` of the class shown where the model looked.
    """
    heads = _heads(tissue, colours, object_type)
    x, y = (
        [str(edge) for edge in edges.tolist()] for edges in (tissue.grid.x_edges_level0, tissue.grid.y_edges_level0)
    )
    for row, (values, shown) in enumerate(zip(tissue.class_index, tissue.confidence, strict=True)):
        columns = np.flatnonzero(values != tissue.classes.background)
        looked = ~np.isnan(shown[columns])
        probability: npt.NDArray[np.float64] = shown[columns].astype(np.float64).round(4)
        for column, value, known, p in zip(
            columns.tolist(), values[columns].tolist(), looked.tolist(), probability.tolist(), strict=True
        ):
            ring = box_ring(x[column], y[row], x[column + 1], y[row + 1])
            yield feature(ring, heads[value], f'"probability":{p!r}' if known else "")


def _heads(tissue: TissueMap, colours: Mapping[str, Sequence[int]] | None, object_type: str) -> list[str]:
    palette = class_colours(tissue.classes.names, colours)
    return [properties(object_type, name, palette[name]) for name in tissue.classes.names]


class GeoJSONWriter(SlideWriter):
    """Writes ``<name>.geojson`` for every slide; QuPath opens it by drag and drop onto the slide.

    Args:
        colours: class colours that win over the built-in ones, name -> (r, g, b).
        object_type: ``annotation`` can be edited in QuPath; ``detection`` draws faster where there are tens of
            thousands. By default regions are annotations and tiles are detections.
        per_tile: one square per tile with its probability instead of one polygon per region; 100 MB and more for a
            large slide.

    Raises:
        ConfigError: a setting is out of range.
    """

    suffix = ".geojson"

    def __init__(
        self,
        *,
        colours: Mapping[str, Sequence[int]] | None = None,
        object_type: str | None = None,
        per_tile: bool = False,
    ) -> None:
        object_type = ("detection" if per_tile else "annotation") if object_type is None else object_type
        if object_type not in _OBJECT_TYPES:
            raise ConfigError(f"object_type must be one of {_OBJECT_TYPES}, but is '{object_type}'")
        self.colours, self.object_type, self.per_tile = given_colours(colours), object_type, per_tile

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours, "object_type": self.object_type, "per_tile": self.per_tile}

    def write(self, path: str | os.PathLike[str], slide: object, prediction: TissueMap) -> None:  # noqa: D102
        features = tile_features if self.per_tile else region_features
        write_features(path, features(prediction, colours=self.colours, object_type=self.object_type))
