# SPDX-License-Identifier: Apache-2.0
"""GeoJSON coordinates to shapely geometry and back without changing a bit, and the polygons of a defective shape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from tral_monai.annotations.model import Annotation, ShapeProblem, describe
from tral_monai.errors import AnnotationError

logger = logging.getLogger(__name__)

GEOMETRY_TYPES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection"
)  # fmt: skip


def build_ring(coordinates: Any, *, closed: Callable[[], None] | None = None) -> shapely.LinearRing:
    """A ring from its points; a missing last point is added.

    Args:
        coordinates: (n, 2) or (n, 3) numbers, level-0 px.
        closed: called when the first point was not repeated at the end.

    Raises:
        AnnotationError: fewer than three points, or something else than finite numbers. The caller names the shape.
    """
    points = _points(coordinates)
    if len(points) and not np.array_equal(points[0], points[-1]):
        points = np.concatenate([points, points[:1]])
        if closed is not None:
            closed()
    if len(points) < 4:
        raise AnnotationError(f"a polygon needs at least 3 points, but has {max(len(points) - 1, 0)}")
    return shapely.LinearRing(points)


def geometry_from_geojson(geometry: Any, *, closed: Callable[[], None] | None = None) -> BaseGeometry:
    """A shapely geometry with exactly the coordinates of a GeoJSON geometry object.

    Args:
        geometry: the parsed object; None (a feature without a place) gives an empty collection.
        closed: called for each ring whose first point was not repeated at the end.

    Raises:
        AnnotationError: an unknown type or coordinates that make no such geometry. The caller names the shape.
    """
    if geometry is None:
        return shapely.GeometryCollection()
    if not isinstance(geometry, dict) or geometry.get("type") not in GEOMETRY_TYPES:
        kind = geometry.get("type") if isinstance(geometry, dict) else geometry
        raise AnnotationError(f"expected a geometry of type {', '.join(GEOMETRY_TYPES)}, but found {kind!r}")
    kind = geometry["type"]
    content = geometry.get("geometries" if kind == "GeometryCollection" else "coordinates")
    if not isinstance(content, list) or (not content and kind != "GeometryCollection"):
        raise AnnotationError(f"the {kind} has no coordinates")
    if kind == "Point":
        return shapely.Point(_points([content])[0])
    if kind == "MultiPoint":
        return shapely.MultiPoint(_points(content))
    if kind == "LineString":
        return _line(content)
    if kind == "MultiLineString":
        return shapely.MultiLineString([_line(line) for line in content])
    if kind == "Polygon":
        return _polygon(content, closed)
    if kind == "MultiPolygon":
        return shapely.MultiPolygon([_polygon(part, closed) for part in content])
    return shapely.GeometryCollection([geometry_from_geojson(part, closed=closed) for part in content])


def geometry_to_geojson(geometry: BaseGeometry) -> dict[str, Any] | None:
    """The GeoJSON geometry object of a shapely geometry: same coordinates, same order, orientation untouched.

    Args:
        geometry: any shapely geometry; an empty one gives None.
    """
    if geometry.is_empty:
        return None
    if isinstance(geometry, shapely.GeometryCollection):
        return {"type": "GeometryCollection", "geometries": [geometry_to_geojson(part) for part in geometry.geoms]}
    if isinstance(geometry, shapely.LinearRing):
        return {"type": "LineString", "coordinates": _list(geometry)}
    return {"type": geometry.geom_type, "coordinates": _coordinates(geometry)}


def polygonal(
    annotation: Annotation, *, file: str = "", index: int = 0, problems: list[ShapeProblem] | None = None
) -> shapely.Polygon | shapely.MultiPolygon | None:
    """The area of an annotation as valid polygons.

    A self-crossing shape is repaired by ``shapely.make_valid``, of whose result only polygons are kept; the repair is
    logged with the shape's name.

    Args:
        annotation: the annotation; it is not changed.
        file: file name for messages.
        index: position in the file, for messages.
        problems: where given, a repair is noted here, and a shape with nothing left is noted and gives None.

    Returns:
        Valid polygons in level-0 px, or None for points, lines and features without a place.

    Raises:
        AnnotationError: no area is left after the repair, and ``problems`` is not given.
    """
    geometry = annotation.geometry
    if geometry.is_empty or not _has_polygon(geometry):
        return None
    if not isinstance(geometry, shapely.GeometryCollection) and geometry.is_valid and geometry.area > 0:
        return geometry
    reason = shapely.is_valid_reason(geometry)
    area = shapely.unary_union(_polygons(shapely.make_valid(geometry)))
    shape = describe(index, annotation.class_name, annotation.name, annotation.id)
    if area.is_empty or area.area == 0:
        problem = ShapeProblem(file, shape, "dropped", f"no area is left after repair [{reason}]")
        if problems is None:
            raise AnnotationError(f"{problem}; draw the shape anew")
        problems.append(problem)
        logger.warning("%s", problem)
        return None
    if reason != "Valid Geometry":
        problem = ShapeProblem(file, shape, "repaired", f"the outline is not a valid polygon [{reason}]")
        logger.warning("%s", problem)
        if problems is not None:
            problems.append(problem)
    return area


def _points(coordinates: Any) -> npt.NDArray[np.float64]:
    try:
        points = np.asarray(coordinates, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise AnnotationError("expected points of 2 numbers each (x, y in level-0 pixels)")
    if not np.isfinite(points).all():
        raise AnnotationError(f"point {int(np.argmin(np.isfinite(points).all(axis=1))) + 1} is not a finite number")
    return points


def _line(coordinates: Any) -> shapely.LineString:
    points = _points(coordinates)
    if len(points) < 2:
        raise AnnotationError(f"a line needs at least 2 points, but has {len(points)}")
    return shapely.LineString(points)


def _polygon(rings: Any, closed: Callable[[], None] | None) -> shapely.Polygon:
    if not isinstance(rings, list) or not rings:
        raise AnnotationError("the polygon has no rings")
    return shapely.Polygon(build_ring(rings[0], closed=closed), [build_ring(hole, closed=closed) for hole in rings[1:]])


def _list(geometry: Any) -> list[list[float]]:
    points: list[list[float]] = shapely.get_coordinates(geometry, include_z=geometry.has_z).tolist()
    return points


def _coordinates(geometry: Any) -> list[Any]:
    if isinstance(geometry, shapely.Point):
        return _list(geometry)[0]
    if isinstance(geometry, shapely.Polygon):
        return [_list(ring) for ring in (geometry.exterior, *geometry.interiors)]
    if hasattr(geometry, "geoms"):
        return [_coordinates(part) for part in geometry.geoms]
    return _list(geometry)


def _has_polygon(geometry: Any) -> bool:
    if isinstance(geometry, (shapely.Polygon, shapely.MultiPolygon)):
        return True
    return isinstance(geometry, shapely.GeometryCollection) and any(map(_has_polygon, geometry.geoms))


def _polygons(geometry: Any) -> list[shapely.Polygon]:
    if isinstance(geometry, shapely.Polygon):
        return [geometry]
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in _polygons(part)]
