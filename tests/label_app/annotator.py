# SPDX-License-Identifier: Apache-2.0
"""A simulated annotator: knows the truth of generated slides, and draws it in QuPath where it is asked to."""

from __future__ import annotations

import io
import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image

from tests.label_app.qupath_requests import QuPath, Shape
from tral_monai.data.generated.cohort import PRESETS, plan_with_all_classes
from tral_monai.data.generated.grid import CELL_PX
from tral_monai.data.generated.hospitals import HOSPITALS
from tral_monai.data.generated.layout import CLASSES, Plan

Truth = Sequence[tuple[str, shapely.Polygon]]
"""(class, outline in level-0 pixels) of all that there is on a slide."""

LEAST_PX2 = 64.0
COLOURS = dict(zip(CLASSES, ("#a01e1e", "#a0a000", "#8c3c8c", "#d28cbe", "#3c3c96"), strict=True))


def tiny_cohort_truth(seed: int = 0) -> dict[str, Truth]:
    """What lies where on the slides of the generated cohort of preset ``tiny``, by slide id, to the last cell.

    The cohort's own annotations outline only some of it, as a pathologist in a hurry does; this is the plan behind it.
    """
    preset = PRESETS["tiny"]
    truth: dict[str, Truth] = {}
    for h, hospital in enumerate(HOSPITALS):
        for i in range(preset.slides_per_hospital):
            plan, _ = plan_with_all_classes(
                np.random.default_rng((seed, h, i)).spawn(3)[0],
                size_px=preset.size_px,
                mpp=hospital.mpp,
                tiles_per_class=preset.tiles_per_class,
                least_tiles=preset.least_tiles,
            )
            truth[f"{hospital.name}-{i + 1:02d}"] = plan_truth(plan)
    return truth


def plan_truth(plan: Plan) -> Truth:
    """Outlines of every class of a plan."""
    shapes = [(name, polygon) for name in CLASSES for polygon in _outlines(plan.class_mask(name))]
    return [(name, shapely.transform(polygon, lambda xy: xy * CELL_PX)) for name, polygon in shapes]


def coco_truth(annotations: Path) -> dict[str, Truth]:
    """Nuclei of generated fields, by field name: ellipses in their boxes."""
    content = json.loads(annotations.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    truth: dict[str, list[tuple[str, shapely.Polygon]]] = {Path(i["file_name"]).stem: [] for i in content["images"]}
    of_image = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    unit = shapely.Point(0, 0).buffer(1.0, quad_segs=4)
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        centre, radii = np.array([x + width / 2, y + height / 2]), np.array([width / 2, height / 2])
        ellipse = shapely.transform(unit, lambda xy, c=centre, r=radii: xy * r + c)
        truth[of_image[one["image_id"]]].append((names[one["category_id"]], ellipse))
    return dict(truth)


class Annotator:
    """Draws the truth in each region that is handed out, and submits it as QuPath does.

    A region without any object gets a rectangle of class ``Region``: QuPath cannot submit nothing. Several threads may
    share one, as colleagues share a slide.

    Args:
        truth: what lies where, by slide id.
    """

    def __init__(self, truth: Mapping[str, Truth]) -> None:
        self._truth = truth
        self._drawn: defaultdict[str, list[Shape]] = defaultdict(list)
        self._lock = threading.Lock()

    def shapes(self, slide: str, bbox: Sequence[int]) -> list[Shape]:
        """What lies in a box, cut at its edges, without holes: QuPath's extension cannot send holes."""
        x, y, width, height = bbox
        box = shapely.box(x, y, x + width, y + height)
        found = []
        for name, polygon in self._truth[slide]:
            for part in shapely.get_parts(polygon.intersection(box)):
                if isinstance(part, shapely.Polygon) and part.area >= LEAST_PX2:
                    found += [_shape(name, piece) for piece in _without_holes(part)]
        return found or [region_shape(bbox)]

    def submit_slide(self, qupath: QuPath, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Submit all that was drawn on the slide so far."""
        slide = str(sample["id"])
        with self._lock:  # two submissions of one slide must not overtake each other
            self._drawn[slide] += self.shapes(slide, sample["bbox"])
            return qupath.submit_slide(slide, self._drawn[slide])

    def submit_region(self, qupath: QuPath, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Submit the region with its picture."""
        slide, bbox = str(sample["id"]), sample["bbox"]
        return qupath.submit_region(slide, bbox, self.shapes(slide, bbox), grey_png(bbox[2], bbox[3]))[1]


def region_shape(bbox: Sequence[int]) -> Shape:
    """A rectangle of class ``Region``: it was looked at."""
    x, y, width, height = bbox
    points = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return Shape("Region", points, "#808080", "Rectangle")


def grey_png(width: int, height: int) -> bytes:
    """A picture of the size of a region."""
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def _shape(name: str, polygon: shapely.Polygon) -> Shape:
    points = [(float(x), float(y)) for x, y in polygon.exterior.coords[:-1]]
    return Shape(name, points, COLOURS.get(name, "#c80000"))


def _without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """The polygon, cut across each of its holes."""
    if not polygon.interiors:
        return [polygon]
    x0, y0, x1, y1 = polygon.bounds
    at = float(int(polygon.interiors[0].centroid.y))
    halves = (shapely.box(x0, y0, x1, at), shapely.box(x0, at, x1, y1))
    pieces = [piece for half in halves for piece in shapely.get_parts(polygon.intersection(half))]
    kept = [piece for piece in pieces if isinstance(piece, shapely.Polygon) and piece.area >= LEAST_PX2]
    return [whole for piece in kept for whole in _without_holes(piece)]


def _outlines(mask: npt.NDArray[np.bool_]) -> list[shapely.Polygon]:
    """Outlines of the True cells, in cells."""
    rows, columns = np.nonzero(mask)
    union = shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1))
    return [part for part in shapely.get_parts(union) if isinstance(part, shapely.Polygon)]
