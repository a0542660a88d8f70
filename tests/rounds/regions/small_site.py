# SPDX-License-Identifier: Apache-2.0
"""A studies folder of small plain slides, and label files as QuPath writes them: what must count is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tral_monai.rounds.regions.region import Region, RegionQuery
from tral_monai.rounds.regions.settings import Task, read_settings
from tral_monai.rounds.regions.site import AnnotationSite

SIDE_PX = 1024
CONF = {"tissue_classes": "Tumor, Stroma", "nuclei_classes": "Lymphocyte, Epithelial"}

Points = list[tuple[float, float]]


def plain_slide(path: Path, *, mpp: float | None = 0.25, side_px: int = SIDE_PX) -> Path:
    """A tiled TIFF of one colour."""
    resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    pixels = np.full((side_px, side_px, 3), 200, np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **resolution)
    return path


def make_site(folder: Path, *names: str, **conf: str) -> AnnotationSite:
    """A site of plain slides with both tasks."""
    for name in names or ("a.tif",):
        plain_slide(folder / name)
    site = AnnotationSite(folder, read_settings({**CONF, **conf}))
    site.labels_dir.mkdir(parents=True, exist_ok=True)
    return site


def ask(site: AnnotationSite, task: Task, *regions: Region, round_: int = 0) -> None:
    """Record a round's query."""
    with site.tasks[task].ledger() as ledger:
        ledger.record_region_query(round_, [RegionQuery(one, "train", None, 0.5, "because") for one in regions])


def box(x: float, y: float, width: float, height: float) -> Points:
    """Corners of a rectangle."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def qupath_xml(objects: list[tuple[str, str, Points]], *, roi: tuple[int, int, int, int] = (0, 0, 0, 0)) -> str:
    """What QuPath's MONAI Label extension sends: (class, QuPath's name of the shape, points on the slide)."""
    x, y, width, height = roi
    rows = []
    for name, kind, points in objects:
        coordinates = "".join(
            f'<Coordinate Order="{i}" X="{int(px) - x}" Y="{int(py) - y}"/>' for i, (px, py) in enumerate(points)
        )
        rows.append(
            f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{name}" Color="#c80000">'
            f"<Coordinates>{coordinates}</Coordinates></Annotation>"
        )
    groups = "".join(f'<Group Name="{name}" PartOfGroup="None" Color="#c80000"/>' for name in {o[0] for o in objects})
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n<ASAP_Annotations>'
        f'<Annotations Name="" Description="" X="{x}" Y="{y}" W="{width}" H="{height}">{"".join(rows)}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def feature(
    name: str | None, points: Points, *, kind: str = "annotation", title: str | None = None, **properties: Any
) -> dict[str, Any]:
    """One object of a QuPath GeoJSON export."""
    own: dict[str, Any] = {"objectType": kind, **properties}
    if name is not None:
        own["classification"] = {"name": name, "color": [200, 0, 0]}
    if title is not None:
        own["name"] = title
    ring = [list(map(float, point)) for point in [*points, points[0]]]
    return {
        "type": "Feature",
        "id": "b2f1c1a4-0000-4000-8000-000000000001",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": own,
    }


def geojson(*features: dict[str, Any]) -> str:
    """A QuPath GeoJSON export."""
    return json.dumps({"type": "FeatureCollection", "features": list(features)})
