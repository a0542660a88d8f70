# SPDX-License-Identifier: Apache-2.0
"""A submitted label map as GeoJSON: one form of labels is stored, whatever viewer they came from.

The areas follow the edges of the pixels exactly; a pixel in column x and row y is the square from (x, y) to
(x + 1, y + 1). That is the grid of :mod:`tral_monai.label_app.image_answer`, which writes the label maps that Slicer
shows: an answer that is submitted unchanged comes back as it was. :mod:`tral_monai.label_app.label_map_file` says how
the file's pixels are matched to the image's.

Slicer does not draw the region that was asked for: the whole image counts as looked at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage
from shapely.affinity import translate

from tral_monai.annotations.geojson import write_geojson
from tral_monai.annotations.model import Annotation
from tral_monai.errors import AnnotationError, OutputError
from tral_monai.inference.map_grid import MapGrid
from tral_monai.inference.polygons import class_regions, label_regions
from tral_monai.label_app.image_answer import MAX_PX
from tral_monai.label_app.label_map_file import LARGEST, NOT_LABELS, SUFFIXES, LabelMap, Segment, read_label_map
from tral_monai.label_app.wsi_result import tissue_names
from tral_monai.rounds.regions.class_names import meaning
from tral_monai.rounds.regions.region_shapes import REGION_CLASS
from tral_monai.rounds.regions.site import AnnotationSite

_MOST_VALUES = 255


def is_label_map(name: str) -> bool:
    """Whether a file is a label map by its name."""
    return name.lower().endswith(SUFFIXES)


@contextmanager
def label_map_as_geojson(site: AnnotationSite, image: str, path: Path, info: Mapping[str, Any]) -> Iterator[Path]:
    """A label map as a temporary GeoJSON file.

    Args:
        site: the site.
        image: the image, or the picture of a region of a slide.
        path: the label map.
        info: what came with it; ``label_info`` names the values, see :func:`label_map_annotations`.

    Yields:
        The GeoJSON file; it is gone after the ``with`` block.

    Raises:
        UnknownItemError: there is no such image.
        SlideError: the image cannot be opened, or has no mpp.
        AnnotationError: it is no picture but a whole slide, or the label map cannot be used.
        OutputError: the temporary file cannot be written.
    """
    part = site.catalog.patch_origin(image)
    if part is not None:
        size = (part.width_level0, part.height_level0)
    else:
        with site.catalog.open(site.catalog.find(image).name) as slide:
            size = (slide.dimensions[0], slide.dimensions[1])
    if max(size) > MAX_PX:
        raise AnnotationError(
            f"'{image}' has {size[0]} x {size[1]} pixels; label maps are taken for pictures of at most {MAX_PX}. "
            "Submit the labels of a slide as polygons, from QuPath (ASAP XML or GeoJSON)"
        )
    annotations = label_map_annotations(site, read_label_map(path, size), info, whole_image=part is None)
    try:
        folder = tempfile.TemporaryDirectory(prefix="label_map_")
    except OSError as error:
        raise OutputError(
            f"no temporary folder can be made ({error.strerror}); free some space, and submit again"
        ) from error
    with folder:
        file = Path(folder.name) / "label_map.geojson"
        write_geojson(file, annotations)
        yield file


def label_map_annotations(
    site: AnnotationSite, labels: LabelMap, info: Mapping[str, Any], *, whole_image: bool = True
) -> list[Annotation]:
    """A label map as annotations.

    Nuclei become one polygon per connected area (pixels that meet only at a corner are not connected), of a site's
    tissue classes one geometry holds all areas of a class. A value without a name becomes areas of the class
    ``value <number>``: no task knows it, so it is set aside and listed.

    Args:
        site: the site.
        labels: the label map.
        info: ``label_info`` as Slicer sends it: a list of ``{"name", "idx"}``, ``idx`` the value. Names in the file
            itself come first. Where neither is given, and one task is offered, values are those of its model's answers.
        whole_image: add a Region over the whole image.

    Raises:
        AnnotationError: ``label_info`` cannot be understood, or there are more values than classes can be.
    """
    height, width = labels.layers.shape[1:]
    found = [Annotation(shapely.box(0, 0, width, height), class_name=REGION_CLASS)] if whole_image else []
    areas: dict[str, list[shapely.Polygon]] = {}
    segments = labels.segments if labels.segments is not None else _named(site, labels.layers, info)
    for number, layer in enumerate(labels.layers):
        for name, polygon in _polygons(layer, [one for one in segments if one.layer == number]):
            areas.setdefault(name, []).append(polygon)
    for name, polygons in areas.items():
        whole = [shapely.union_all(polygons)] if _is_area(site, name) else polygons
        found += [Annotation(geometry, class_name=name) for geometry in whole]
    return found


def _polygons(layer: npt.NDArray[np.uint16], segments: Sequence[Segment]) -> Iterator[tuple[str, shapely.Polygon]]:
    """Name and outline of every connected area of equal value."""
    there = np.zeros(LARGEST + 1, dtype=bool)
    there[layer.ravel()] = True
    values = np.flatnonzero(there[1:]) + 1
    if len(values) > _MOST_VALUES:
        raise AnnotationError(
            f"expected a label map with a value per class, but it has {len(values)} values; draw all objects of a "
            "class in one segment"
        )
    names = {one.value: one.name for one in segments}
    index = np.zeros(there.size, dtype=np.uint8)
    index[values] = np.arange(1, len(values) + 1)
    numbered, which = label_regions(index[layer], range(1, len(values) + 1))
    # One area at a time: the vectoriser needs some 50 bytes per pixel.
    for number, window in enumerate(ndimage.find_objects(numbered), 1):
        value = int(values[which[number] - 1])
        name = names.get(value, f"value {value}")
        if name not in NOT_LABELS:
            part = (numbered[window] == number).astype(np.uint8)
            (outline,) = class_regions(part, MapGrid((part.shape[1], part.shape[0]), 1.0), [1])
            yield name, translate(outline.geometry, window[1].start, window[0].start)


def _is_area(site: AnnotationSite, name: str) -> bool:
    """Whether a name's areas are tissue; otherwise each of them is an object of its own."""
    if "tissue" not in site.tasks or "nuclei" not in site.tasks:
        return "tissue" in site.tasks
    kinds = [meaning(site.tasks[task], name).kind for task in ("tissue", "nuclei")]
    return kinds[0] == "class" and kinds[1] != "class"


def _named(site: AnnotationSite, layers: npt.NDArray[np.uint16], info: Mapping[str, Any]) -> tuple[Segment, ...]:
    """What the values of a plain label map mean."""
    rows = info.get("label_info")
    if rows is not None:
        return _from_label_info(rows)
    if len(site.tasks) > 1:
        if layers.any():
            raise AnnotationError(
                "nothing says which class which value of the label map means; send `label_info`, a list of "
                '{"name": class, "idx": value}'
            )
        return ()
    (task,) = site.tasks.values()
    names = tissue_names(task.classes) if task.name == "tissue" else task.classes
    return tuple(Segment(name, value) for value, name in enumerate(names, 1))


def _from_label_info(rows: Any) -> tuple[Segment, ...]:
    try:
        found = tuple(Segment(str(row["name"]), int(row["idx"])) for row in rows if int(row["idx"]) != 0)
    except (TypeError, KeyError, ValueError) as error:
        raise AnnotationError(
            f'expected `label_info` as a list of {{"name": class, "idx": value}}, but {str(rows)[:80]!r} came'
        ) from error
    values = sorted(one.value for one in found)
    if values != list(range(1, len(values) + 1)):
        # Slicer counts segments that it leaves out (`background`) in idx, but not in the label map that it writes.
        raise AnnotationError(
            f"`label_info` numbers the segments {values}, and the values of the label map go from 1 without a gap; in "
            f"Slicer, delete the segments called {', '.join(NOT_LABELS)}, and submit again"
        )
    return found
