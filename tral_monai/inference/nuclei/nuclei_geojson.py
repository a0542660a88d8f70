# SPDX-License-Identifier: Apache-2.0
"""Nuclei as QuPath detections: one box per nucleus with its class and measurements, fast and in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tral_monai.annotations.text_file import write_text
from tral_monai.inference.nuclei.nucleus_map import FloatColumn, NucleusMap
from tral_monai.inference.palette import given_colours
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

    Coordinates are level-0 px to a hundredth. A measurement that is not known (NaN) is left out. The text is written by
    hand, piece by piece: the objects are all alike, and 100,000 of them take about a second.

    Args:
        path: file to write, replaced only once it is whole; packed if it ends in ``.gz``.
        nuclei: what to write, in this order.
        colours: class colours that win over the map's own.

    Raises:
        OutputError: the file cannot be written.
    """
    palette = {**nuclei.colours, **given_colours(colours)}
    heads = []
    for name in nuclei.classes:
        classification = json.dumps({"name": name, "color": list(palette[name])}, ensure_ascii=False)
        heads.append(f'"properties":{{"objectType":"detection","classification":{classification},"measurements":{{')
    with write_text(path) as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        for start in range(0, len(nuclei), _CHUNK):
            stream.write((",\n" if start else "\n") + ",\n".join(_features(nuclei, start, heads)))
        stream.write("\n]}\n")


def _features(nuclei: NucleusMap, start: int, heads: Sequence[str]) -> Iterator[str]:
    part = slice(start, start + _CHUNK)
    left, top, right, bottom = nuclei.boxes_level0[part].T.tolist()
    labels = nuclei.labels[part].tolist()
    columns = [_texts(name, getattr(nuclei, column)[part]) for name, column in MEASUREMENTS.items()]
    for x0, y0, x1, y1, label, *texts in zip(left, top, right, bottom, labels, *columns, strict=True):
        yield (
            '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[['
            f"[{x0:.2f},{y0:.2f}],[{x1:.2f},{y0:.2f}],[{x1:.2f},{y1:.2f}],[{x0:.2f},{y1:.2f}],[{x0:.2f},{y0:.2f}]"
            f"]]}},{heads[label]}{','.join(filter(None, texts))}}}}}}}"
        )


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
