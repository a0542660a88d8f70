# SPDX-License-Identifier: Apache-2.0
"""The classes of a tissue map as QuPath objects: one polygon per connected region, with its measurements."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tral_monai.annotations.geojson import write_geojson
from tral_monai.annotations.model import Annotation
from tral_monai.errors import ConfigError
from tral_monai.inference.palette import class_colours, given_colours
from tral_monai.inference.polygons import class_regions, label_regions
from tral_monai.inference.slide_writer import SlideWriter
from tral_monai.inference.tissue_map import TissueMap

_OBJECT_TYPES = ("annotation", "detection")


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
    classes = tissue.classes
    palette = class_colours(classes.names, colours)
    values = [value for value in range(len(classes)) if value != classes.background]
    labels, _ = label_regions(tissue.class_index, values)
    flat = labels.ravel()
    tiles = np.maximum(np.bincount(flat), 1)  # cells without a region have number 0, which may not occur
    probability = (
        np.bincount(flat, weights=np.nan_to_num(tissue.confidence.ravel(), nan=0.0).astype(np.float64)) / tiles
    )
    mm2_per_px = tissue.mpp_xy[0] * tissue.mpp_xy[1] / 1e6
    for region in class_regions(tissue.class_index, tissue.grid, values):
        measurements = {"area_mm2": region.geometry.area * mm2_per_px, "tiles": region.tiles}
        if region.value != classes.not_analysed:
            measurements["mean_probability"] = round(float(probability[region.label]), 4)
        yield Annotation(
            geometry=region.geometry,
            class_name=classes.names[region.value],
            color=palette[classes.names[region.value]],
            object_type=object_type,
            properties={"measurements": measurements},
        )


class GeoJSONWriter(SlideWriter):
    """Writes ``<name>.geojson`` for every slide; QuPath opens it by drag and drop onto the slide.

    Args:
        colours: class colours that win over the built-in ones, name -> (r, g, b).
        object_type: ``annotation`` can be edited in QuPath; ``detection`` draws faster where regions go into tens of
            thousands.

    Raises:
        ConfigError: a setting is out of range.
    """

    suffix = ".geojson"

    def __init__(self, *, colours: Mapping[str, Sequence[int]] | None = None, object_type: str = "annotation") -> None:
        if object_type not in _OBJECT_TYPES:
            raise ConfigError(f"object_type must be one of {_OBJECT_TYPES}, but is '{object_type}'")
        self.colours, self.object_type = given_colours(colours), object_type

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours, "object_type": self.object_type}

    def write(self, path: str | os.PathLike[str], slide: object, prediction: TissueMap) -> None:  # noqa: D102
        write_geojson(path, class_annotations(prediction, colours=self.colours, object_type=self.object_type))
