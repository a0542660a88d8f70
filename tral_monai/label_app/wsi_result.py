# SPDX-License-Identifier: Apache-2.0
"""What inference found on a slide or a picture: shapes with classes in level-0 pixels, whatever the model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import shapely

from tral_monai.inference.geojson_writer import class_annotations
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.palette import Rgb, class_colours
from tral_monai.inference.polygon_parts import parts_without_holes
from tral_monai.inference.slide_window import Rectangle
from tral_monai.inference.tissue_map import TissueMap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """n shapes.

    Attributes:
        polygons: (n,) object, shapely polygons with whole level-0 coordinates, holes allowed.
        labels: (n,) int64 values of the label map: 1 is ``names[0]``.
        scores: (n,) float64 probability or score of the class, 0 to 1.
        names: classes that can be found, in the order of their values from 1.
        colours: colour of each.
    """

    polygons: npt.NDArray[np.object_]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    names: tuple[str, ...]
    colours: Mapping[str, Rgb]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def values(self) -> dict[str, int]:
        """Label map value of each class, from 1 without a gap: Slicer counts on that."""
        return {name: value for value, name in enumerate(self.names, 1)}

    def keep(self, which: npt.NDArray[np.bool_]) -> Shapes:
        """Some of them."""
        return dataclasses.replace(
            self, polygons=self.polygons[which], labels=self.labels[which], scores=self.scores[which]
        )

    def counts(self) -> dict[str, int]:
        """Number of shapes of every class, absent ones with 0."""
        counts = np.bincount(self.labels, minlength=len(self.names) + 1)[1:]
        return dict(zip(self.names, counts.tolist(), strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WsiResult:
    """The answer to one request, before it is written.

    Attributes:
        model: name of the model.
        description: of the model.
        image: file name of the slide or picture.
        region: (x, y, width, height) that was looked at, level-0 px.
        dimensions: (width, height) of the image.
        shapes: what was found.
        warnings: what a reader of the result should know, one sentence each.
        latencies: wall-clock seconds by stage: ``pre`` (opening, tissue mask), ``infer``, ``invert`` (always 0),
            ``post`` (shapes), ``write``, ``total``.
    """

    model: str
    description: str
    image: str
    region: Rectangle
    dimensions: tuple[int, int]
    shapes: Shapes
    warnings: tuple[str, ...] = ()
    latencies: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def rings(self) -> Iterator[tuple[str, list[list[int]]]]:
        """Class and corners (x, y) of every shape; one with holes comes as several that cover it.

        The first corner is not repeated at the end.
        """
        names = self.shapes.names
        for polygon, label in zip(self.shapes.polygons, self.shapes.labels.tolist(), strict=True):
            for part in parts_without_holes(polygon) if polygon.interiors else (polygon,):
                corners = np.floor(shapely.get_coordinates(part.exterior)[:-1] + 0.5).astype(np.int64)
                yield names[label - 1], corners.tolist()

    def written_in(self, seconds: float) -> WsiResult:
        """The same with the time that writing took."""
        latencies = {**self.latencies, "write": round(seconds, 3)}
        latencies["total"] = round(latencies.get("total", 0.0) + seconds, 3)
        return dataclasses.replace(self, latencies=latencies)


def tissue_names(tissue_classes: Sequence[str], background: str = "Background") -> tuple[str, ...]:
    """Classes that are drawn on a tissue map: the model's without the background, then ``Undefined``."""
    return (*(name for name in tissue_classes if name != background), "Undefined")


def joined_map(first: TissueMap, other: TissueMap) -> TissueMap:
    """Two maps of one slide by the same mapper, each of a part of it, as one; the second wins where both looked.

    Args:
        first: the one, without ``probabilities``, which are dropped.
        other: the other.
    """
    looked = other.class_index != other.classes.background
    return dataclasses.replace(
        first,
        class_index=np.where(looked, other.class_index, first.class_index),
        confidence=np.where(looked, other.confidence, first.confidence),
        probabilities=None,
        failed_centres_level0=np.concatenate([first.failed_centres_level0, other.failed_centres_level0]),
        failures=tuple(dict.fromkeys((*first.failures, *other.failures))),
        seconds={stage: value + other.seconds.get(stage, 0.0) for stage, value in first.seconds.items()},
    )


def tissue_shapes(maps: Iterable[TissueMap], colours: Mapping[str, Sequence[int]] | None = None) -> Shapes:
    """Regions of equal class of one slide, merged over tiles and over the parts of it that were mapped.

    Args:
        maps: one or more maps of the same slide by the same mapper, each of a part of it.
        colours: class colours that win over the built-in ones.
    """
    first = functools.reduce(joined_map, maps)
    # Tiles that could not be analysed are not drawn; a warning tells of these.
    shown = np.where(first.class_index == first.classes.not_analysed, first.classes.background, first.class_index)
    merged = dataclasses.replace(first, class_index=shown)
    names = tissue_names(first.classes.model_classes, first.classes.names[first.classes.background])
    values = {name: value for value, name in enumerate(names, 1)}
    found = list(class_annotations(merged, colours=colours))
    return Shapes(
        polygons=_array([annotation.geometry for annotation in found]),
        labels=np.array([values[str(annotation.class_name)] for annotation in found], dtype=np.int64),
        scores=np.array(
            [annotation.properties["measurements"]["mean_probability"] for annotation in found], dtype=np.float64
        ),
        names=names,
        colours=class_colours(names, dict(colours or {})),
    )


def nucleus_shapes(maps: Sequence[NucleusMap]) -> Shapes:
    """Boxes of nuclei; one that several parts of the slide show comes once.

    Args:
        maps: one or more maps of the same slide by the same mapper, each of a part of it.
    """
    first = maps[0]
    boxes = np.floor(np.concatenate([part.boxes_level0 for part in maps]).astype(np.float64) + 0.5)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate([part.labels for part in maps])
    scores = np.concatenate([part.score for part in maps]).astype(np.float64)
    _, once = np.unique(np.column_stack((boxes, labels)), axis=0, return_index=True)
    once.sort()
    return Shapes(
        polygons=np.asarray(shapely.box(*boxes[once].T), dtype=object).reshape(-1),
        labels=labels[once].astype(np.int64) + 1,
        scores=scores[once],
        names=first.classes,
        colours=first.colours,
    )


def _array(polygons: list[shapely.Polygon]) -> npt.NDArray[np.object_]:
    result = np.empty(len(polygons), dtype=object)
    result[:] = polygons
    return result
