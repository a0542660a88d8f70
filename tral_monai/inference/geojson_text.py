# SPDX-License-Identifier: Apache-2.0
"""GeoJSON of very many alike objects, as text written piece by piece: what every object shares is put together once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

from tral_monai.annotations.text_file import write_text


def write_features(path: str | os.PathLike[str], features: Iterable[str]) -> None:
    """Write a FeatureCollection, feature by feature.

    Args:
        path: file to write, replaced only once it is whole; packed if it ends in ``.gz``.
        features: the text of each, from :func:`feature`.

    Raises:
        OutputError: the file cannot be written.
    """
    with write_text(path) as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        separator = "\n"
        for text in features:
            stream.write(separator)
            stream.write(text)
            separator = ",\n"
        stream.write("\n]}\n")


def properties(object_type: str, name: str, colour: Sequence[int]) -> str:
    """The properties of the objects of one class, up to their measurements.

    Args:
        object_type: QuPath's type, such as ``annotation``.
        name: of the class.
        colour: of the class, (r, g, b).

    Returns:
        The beginning of a JSON object, which :func:`feature` completes.
    """
    classification = json.dumps({"name": name, "color": list(colour)}, ensure_ascii=False, separators=(",", ":"))
    return f'{{"objectType":{json.dumps(object_type)},"classification":{classification},"measurements":{{'


def feature(rings: str, head: str, measurements: str) -> str:
    """The text of one polygon.

    Args:
        rings: its closed rings, ``[[x,y],...]``, with commas between them.
        head: what :func:`properties` gives.
        measurements: ``"name":value``, with commas between them.
    """
    return (
        f'{{"type":"Feature","geometry":{{"type":"Polygon","coordinates":[{rings}]}},'
        f'"properties":{head}{measurements}}}}}}}'
    )


def box_ring(left: str, top: str, right: str, bottom: str) -> str:
    """The closed ring of a rectangle whose borders are given as text."""
    return f"[[{left},{top}],[{right},{top}],[{right},{bottom}],[{left},{bottom}],[{left},{top}]]"
