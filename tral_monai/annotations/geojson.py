# SPDX-License-Identifier: Apache-2.0
"""QuPath GeoJSON, read and written without loss.

Read: a FeatureCollection, a bare list of features or a single feature; classes with colours as ``color: [r, g, b]`` or
the older packed ``colorRGB``; derived classes (``names``); objects of every type. A feature without QuPath's
``classification`` may carry its class as ``class_name``. Written: a FeatureCollection, as QuPath exports it since 0.4.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tral_monai.annotations.geometry import geometry_from_geojson, geometry_to_geojson
from tral_monai.annotations.model import Annotation, Color, ShapeProblem, describe
from tral_monai.annotations.text_file import read_text, write_text
from tral_monai.errors import AnnotationError

_OLD_TYPES = {f"Path{name}Object": name.lower() for name in ("Annotation", "Detection", "Cell", "Tile", "Root")}


def parse_geojson(text: str, *, file: str = "text", problems: list[ShapeProblem] | None = None) -> list[Annotation]:
    """Annotations in the order of the text.

    Args:
        text: the JSON text.
        file: file name for messages.
        problems: where given, a shape that cannot be used is noted here and left out, and closed rings are noted.

    Raises:
        AnnotationError: malformed JSON (with line and column), no features, or a shape that cannot be used while
            ``problems`` is not given.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{file}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); "
            "the export may have been cut off, export it again"
        ) from error
    except RecursionError as error:
        raise AnnotationError(f"{file}: the JSON is nested too deeply to be annotations") from error
    annotations = []
    for index, feature in enumerate(_features(content, file)):
        shape = describe(index)
        try:
            if not isinstance(feature, dict) or feature.get("type") != "Feature":
                raise AnnotationError(f"expected an object of type 'Feature', but found {_short(feature)}")
            shape = _describe(index, feature)
            closed: list[bool] = []
            annotations.append(_annotation(feature, closed))
            if closed and problems is not None:
                problems.append(ShapeProblem(file, shape, "closed", "the first point is not repeated at the end"))
        except AnnotationError as error:
            problem = ShapeProblem(file, shape, "dropped", str(error))
            if problems is None:
                raise AnnotationError(f"{file}, {shape}: {error}; correct or delete the shape") from error
            problems.append(problem)
    return annotations


def write_geojson(path: str | os.PathLike[str], annotations: Iterable[Annotation]) -> None:
    """Write annotations for QuPath, one after the other, so that a generator of millions needs no memory.

    Args:
        path: file to write, replaced only once it is whole; packed if it ends in ``.gz``.
        annotations: what to write, in this order.

    Raises:
        AnnotationError: an annotation holds what JSON cannot express.
        OutputError: the file cannot be written.
    """
    with write_text(path) as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        for index, annotation in enumerate(annotations):
            try:
                text = json.dumps(to_feature(annotation), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            except (TypeError, ValueError) as error:
                shape = describe(index, annotation.class_name, annotation.name, annotation.id)
                raise AnnotationError(f"{Path(path).name}, {shape}: cannot be written as JSON ({error})") from error
            stream.write(("," if index else "") + "\n" + text)
        stream.write("\n]}\n")


def to_feature(annotation: Annotation) -> dict[str, Any]:
    """The GeoJSON feature of one annotation, as plain Python objects."""
    extra = dict(annotation.extra)
    geometry_extra = extra.pop("geometry", {})
    geometry = geometry_to_geojson(annotation.geometry)
    feature: dict[str, Any] = {"type": "Feature"}
    if annotation.id is not None:
        feature["id"] = annotation.id
    feature["geometry"] = geometry if geometry is None else {**geometry, **geometry_extra}
    feature.update(extra)
    properties: dict[str, Any] = {"objectType": annotation.object_type}
    if annotation.name is not None:
        properties["name"] = annotation.name
    rest = dict(annotation.properties)
    classification = dict(rest.pop("classification", {}))
    if annotation.class_name is not None:
        if _joined(classification.get("names")) != annotation.class_name:
            classification = {
                "name": annotation.class_name,
                **{k: v for k, v in classification.items() if k != "names"},
            }
        if annotation.color is not None:
            classification["color"] = list(annotation.color)
        properties["classification"] = classification
    else:
        if annotation.color is not None:
            properties["color"] = list(annotation.color)
        unnamed = {k: v for k, v in classification.items() if k != "names"}
        if unnamed:
            properties["classification"] = unnamed
    properties.update(rest)
    feature["properties"] = properties
    return feature


def read_geojson(path: str | os.PathLike[str], *, problems: list[ShapeProblem] | None = None) -> list[Annotation]:
    """Read a GeoJSON file, plain or gzip; see :func:`parse_geojson`.

    Args:
        path: the file.
        problems: see :func:`parse_geojson`.

    Raises:
        AnnotationError: the file cannot be read, or see :func:`parse_geojson`.
    """
    return parse_geojson(read_text(path), file=Path(path).name, problems=problems)


def _features(content: Any, file: str) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [content]
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        features = content.get("features")
        if isinstance(features, list):
            return features
    raise AnnotationError(
        f"{file}: expected a GeoJSON FeatureCollection, a list of features or one feature, but found "
        f"{_short(content)}; in QuPath: File > Export objects as GeoJSON"
    )


def _annotation(feature: dict[str, Any], closed: list[bool]) -> Annotation:
    raw_geometry = feature.get("geometry")
    geometry = geometry_from_geojson(raw_geometry, closed=lambda: closed.append(True))
    properties = feature.get("properties") or {}
    if not isinstance(properties, dict):
        raise AnnotationError(f"expected properties as an object, but found {_short(properties)}")
    properties = dict(properties)
    extra = {k: v for k, v in feature.items() if k not in ("type", "id", "geometry", "properties")}
    if raw_geometry:
        members = {k: v for k, v in raw_geometry.items() if k not in ("type", "coordinates", "geometries")}
        extra.update({"geometry": members} if members else {})
    id_ = None if feature.get("id") is None else str(feature["id"])
    name = properties.get("name")
    if name is None or isinstance(name, str):
        properties.pop("name", None)
    else:
        name = None  # a name that is no text stays among the properties
    object_type = properties.pop("objectType", None) or _OLD_TYPES.get(id_ or "", "annotation")
    class_name, color = _classification(properties)
    return Annotation(
        geometry=geometry,
        class_name=class_name,
        name=name,
        color=color,
        id=id_,
        object_type=str(object_type),
        properties=properties,
        extra=extra,
    )


def _classification(properties: dict[str, Any]) -> tuple[str | None, Color | None]:
    """Take class and colour out of the properties; what else the classification holds stays there."""
    raw = properties.pop("classification", None)
    if raw is None:
        class_name = properties.pop("class_name", None)
        if class_name is None:
            return None, _take_color(properties)
        raw = class_name
    if isinstance(raw, str):
        return raw, None
    if not isinstance(raw, dict):
        raise AnnotationError(f"expected a classification with a name, but found {_short(raw)}")
    class_name = _joined(raw.get("names")) or raw.get("name")
    if class_name is None:
        properties["classification"] = raw
        return None, _take_color(properties)
    if not isinstance(class_name, str):
        raise AnnotationError(f"expected a class name as text, but found {_short(class_name)}")
    raw = {key: value for key, value in raw.items() if key != "name"}
    color = _take_color(raw)
    if raw:
        properties["classification"] = raw
    return class_name, color


def _joined(names: Any) -> str | None:
    is_names = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return ": ".join(names) if is_names else None


def _take_color(holder: dict[str, Any]) -> Color | None:
    """Take ``color`` ([r, g, b]) or ``colorRGB`` (Java's packed int, with alpha and sign) out of an object."""
    packed = holder.pop("colorRGB", None)
    color = holder.pop("color", None)
    if color is not None:
        channels = color if isinstance(color, list) else []
        if len(channels) not in (3, 4) or not all(isinstance(c, int) and 0 <= c <= 255 for c in channels):
            raise AnnotationError(f"expected a colour as [red, green, blue] of 0 to 255, but found {_short(color)}")
        return channels[0], channels[1], channels[2]
    if packed is not None:
        if not isinstance(packed, int):
            raise AnnotationError(f"expected colorRGB as a whole number, but found {_short(packed)}")
        return (packed >> 16) & 255, (packed >> 8) & 255, packed & 255
    return None


def _describe(index: int, feature: dict[str, Any]) -> str:
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    raw = properties.get("classification")
    class_name = raw.get("name") if isinstance(raw, dict) else raw
    return describe(
        index, *(None if v is None else str(v) for v in (class_name, properties.get("name"), feature.get("id")))
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
