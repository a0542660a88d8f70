# SPDX-License-Identifier: Apache-2.0
"""What was found in a region, as the polygons that MONAI Label writes for QuPath, DSA and CVAT."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from monai.transforms.transform import Transform

from tral_monai.errors import ConfigError
from tral_monai.inference.geojson_writer import class_annotations
from tral_monai.inference.nuclei.nucleus_map import NucleusMap
from tral_monai.inference.palette import Rgb, class_colours, given_colours
from tral_monai.inference.polygon_parts import parts_without_holes
from tral_monai.inference.region_inferer import RegionPrediction

_log = logging.getLogger(__name__)


class PolygonAnswerd(Transform):
    """Last transform of a bundle in MONAI Label's stock ``monaibundle`` app: the region's polygons are the answer.

    That app has no writer of polygons. What it is told here is to skip the writers that it has (``skip_writer``), and
    then it takes the data themselves as the answer: so they are cut down to plain values that can be sent as JSON.

    Args:
        class_colours: name -> (r, g, b); these win over the network's own.
        lower_case: names as MONAI Label lists a bundle's labels. QuPath replaces earlier results only if their class is
            a listed label, letter by letter.

    Raises:
        ConfigError: a colour is not three whole numbers from 0 to 255.
    """

    def __init__(self, *, class_colours: Mapping[str, Sequence[int]] | None = None, lower_case: bool = True) -> None:
        self.class_colours, self.lower_case = given_colours(class_colours), lower_case

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Make the answer.

        Args:
            data: ``pred`` is a :class:`~tral_monai.inference.region_inferer.RegionPrediction`; ``latencies`` may hold
                the seconds of transforms that ran before, by stage and name.

        Returns:
            ``annotation`` with ``location``, ``size``, ``labels`` (name -> colour) and ``elements``, each a ``label``
            and its ``contours`` in level-0 px; ``pred``, the number of contours; ``latencies`` in seconds, ``total``
            and by stage; ``skip_writer``.

        Raises:
            ConfigError: ``pred`` is something else.
        """
        started = time.perf_counter()
        found = data.get("pred")
        if not isinstance(found, RegionPrediction):
            raise ConfigError(
                f"polygons are made of what a RegionInferer found, but pred is a {type(found).__name__}; use it as the "
                "inferer"
            )
        contours: dict[str, list[list[tuple[float, float]]]] = {}
        for name, polygon in _polygons(found):
            parts = parts_without_holes(polygon)
            contours.setdefault(name, []).extend(list(part.exterior.coords[:-1]) for part in parts)
        labels = {self._shown(name): list(colour) for name, colour in self._colours(found, list(contours)).items()}
        elements = [{"label": self._shown(name), "contours": parts} for name, parts in contours.items()]
        x, y, width, height = found.region_level0 or (0, 0, 0, 0)
        seconds = {
            "pre": sum((data.get("latencies") or {}).get("pre", {}).values()),
            "infer": found.prediction.seconds.get("total", 0.0),
            "post": time.perf_counter() - started,
        }
        latencies = {stage: _StageSeconds(round(value, 4)) for stage, value in seconds.items()}
        return {
            "annotation": {"location": [x, y], "size": [width, height], "elements": elements, "labels": labels},
            "pred": np.float64(sum(map(len, contours.values()))),  # has a shape, which the app looks at, and is a float
            "latencies": {"total": round(sum(seconds.values()), 4), **latencies},
            "skip_writer": True,
        }

    def _shown(self, name: str) -> str:
        return name.lower() if self.lower_case else name

    def _colours(self, found: RegionPrediction, names: Sequence[str]) -> dict[str, Rgb]:
        prediction = found.prediction
        own = prediction.colours if isinstance(prediction, NucleusMap) else found.colours
        known = prediction.classes if isinstance(prediction, NucleusMap) else prediction.classes.names
        colours = class_colours(known, {**own, **self.class_colours})  # of all classes: the same in every region
        return {name: colours[name] for name in names}


class _StageSeconds(float):
    """Seconds of a stage. The app notes those of single transforms by name in the stage, but sums stages as numbers."""

    def __setitem__(self, name: str, seconds: float) -> None:
        """Leave out what a single transform took."""


def _polygons(found: RegionPrediction) -> Iterator[tuple[str, shapely.Polygon]]:
    """Class and polygon of everything that the network has a class for; undefined tissue is none."""
    prediction = found.prediction
    if prediction.failures:
        _log.warning("a part of the region was not analysed: %s", "; ".join(prediction.failures[:3]))
    if isinstance(prediction, NucleusMap):
        boxes = np.round(prediction.boxes_level0.astype(np.float64), 2)
        for label, polygon in zip(prediction.labels.tolist(), shapely.box(*boxes.T), strict=True):
            yield prediction.classes[label], polygon
        return
    for region in class_annotations(prediction):
        if region.class_name in prediction.classes.model_classes and isinstance(region.geometry, shapely.Polygon):
            yield region.class_name, region.geometry
