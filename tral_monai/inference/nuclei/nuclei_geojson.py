# SPDX-License-Identifier: Apache-2.0
"""Nuclei as QuPath detections, one box each with class and measurements; what was not analysed as annotations."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tral_monai.inference.geojson_text import box_ring, feature, properties, write_features
from tral_monai.inference.map_classes import NOT_ANALYSED
from tral_monai.inference.nuclei.nucleus_map import FloatColumn, NucleusMap
from tral_monai.inference.palette import class_colours, given_colours
from tral_monai.inference.slide_writer import SlideWriter

_CHUNK = 5_000  # nuclei turned into text at once: about 2 MB

MEASUREMENTS = {
    "Score": "score",
    "Uncertainty": "uncertainty",
    "Distance to known": "distance_known",
    "Distance to unknown": "distance_unknown",
}
"""Names that QuPath shows, and the columns of the map that they come from."""


def write_nuclei(
    path: str | os.PathLike[str], nuclei: NucleusMap, *, colours: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Write nuclei as a GeoJSON FeatureCollection of QuPath detections.

    Coordinates are level-0 px to a hundredth. A measurement that is not known (NaN) is left out. Behind the nuclei
    follow the parts of the image that could not be analysed, as annotations of the class ``Not analysed``: where they
    lie, no nucleus was looked for. The text is put together piece by piece: the objects are all alike, and 100,000 of
    them take about a second.

    Args:
        path: file to write, replaced only once it is whole; packed if it ends in ``.gz``.
        nuclei: what to write, in this order.
        colours: class colours that win over the map's own.

    Raises:
        OutputError: the file cannot be written.
    """
    palette = {**nuclei.colours, **given_colours(colours)}
    heads = [properties("detection", name, palette[name]) for name in nuclei.classes]
    write_features(path, itertools.chain(_nuclei(nuclei, heads), _not_analysed(nuclei, colours)))


def _nuclei(nuclei: NucleusMap, heads: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(nuclei), _CHUNK):
        part = slice(start, start + _CHUNK)
        boxes = nuclei.boxes_level0[part].T.tolist()
        labels = nuclei.labels[part].tolist()
        columns = [_texts(name, getattr(nuclei, column)[part]) for name, column in MEASUREMENTS.items()]
        for x0, y0, x1, y1, label, *texts in zip(*boxes, labels, *columns, strict=True):
            ring = box_ring(f"{x0:.2f}", f"{y0:.2f}", f"{x1:.2f}", f"{y1:.2f}")
            yield feature(ring, heads[label], ",".join(filter(None, texts)))


def _not_analysed(nuclei: NucleusMap, colours: Mapping[str, Sequence[int]] | None) -> Iterator[str]:
    head = properties("annotation", NOT_ANALYSED, class_colours([NOT_ANALYSED], colours)[NOT_ANALYSED])
    mm2_per_px = nuclei.mpp_xy[0] * nuclei.mpp_xy[1] / 1e6
    for x0, y0, x1, y1 in nuclei.not_analysed_level0.tolist():
        ring = box_ring(f"{x0:.2f}", f"{y0:.2f}", f"{x1:.2f}", f"{y1:.2f}")
        yield feature(ring, head, f'"area_mm2":{(x1 - x0) * (y1 - y0) * mm2_per_px!r}')


def _texts(name: str, column: FloatColumn) -> list[str]:
    """``"name":value`` of every nucleus, empty where the value is not known."""
    key = json.dumps(name)
    unknown = np.isnan(column).tolist()
    return ["" if nan else f"{key}:{value:.4f}" for value, nan in zip(column.tolist(), unknown, strict=True)]


class NucleiGeoJSONWriter(SlideWriter):
    """Writes ``<name>.geojson`` for every image; QuPath opens it by drag and drop onto the image.

    Args:
        colours: class colours that win over the detector's own, name -> (r, g, b).
        packed: write ``<name>.geojson.gz`` instead, about an eighth of the size; unpack it for QuPath.

    Raises:
        ConfigError: a colour is not three whole numbers from 0 to 255.
    """

    def __init__(self, *, colours: Mapping[str, Sequence[int]] | None = None, packed: bool = False) -> None:
        self.colours = given_colours(colours)
        self.suffix = ".geojson.gz" if packed else ".geojson"

    def settings(self) -> dict[str, Any]:  # noqa: D102
        return {"colours": self.colours}

    def write(self, path: str | os.PathLike[str], slide: object, prediction: NucleusMap) -> None:  # noqa: D102
        write_nuclei(path, prediction, colours=self.colours)
