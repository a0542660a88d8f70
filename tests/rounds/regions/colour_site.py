# SPDX-License-Identifier: Apache-2.0
"""A site with slides of plain colours, and an annotator who knows them: what is drawn where is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping

from tests.inference.colour_slides import CLASSES, TILE, slide_pixels, write_slide
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite, TaskSite

BACKBONE = "timm:mobilenetv3_small_050"
PATTERN = ("SSSSMMMM", "SSSSMMMM", "SSBBBBMM", "SSBBBBMM", "SSSSMMMM", "SSSSMMMM")
"""One cell is one tile at 40x; rows 2 and 3 hold Blood from column 2 to 5."""

OVERRIDES: dict[str, Any] = {
    "backbone": BACKBONE,
    "hidden": [],
    "frozen": True,
    "feature_norm": "batch",
    "max_epochs": 15,
    "patience": 15,
    "batch_size": 16,
    "learning_rate": 0.01,
    "optimizer_name": "AdamW",
    "optimizer_options": {},
    "augment": False,
    "dropout": 0.0,
}


def make_slides(studies: Path, names: tuple[str, ...] = ("a", "b", "c"), *, held_out: str = "c") -> Path:
    """Slides of 1024 x 768 px at 0.25 um, all of tissue, and the table that says which one is held out."""
    studies.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_slide(studies / f"{name}.tif", slide_pixels(PATTERN))
    rows = "".join(f"{name},{'val' if name in held_out else 'train'}\n" for name in names)
    (studies / "slides.csv").write_text(f"slide,split\n{rows}")
    return studies


def tissue_site(studies: Path, **conf: Any) -> TaskSite:
    """The tissue task: three classes, a linear classifier on a small random backbone."""
    settings = {
        "tasks": "tissue",
        "tissue_classes": "Stroma, Muscle, Blood",
        "tissue_overlay": None,
        "tissue_overrides": OVERRIDES,
        "tissue_strategy": "random",
        "tissue_region_um": 64.0,
        "tissue_budget": 2,
        "tissue_val_budget": 1,
        "device": "cpu",
    }
    return AnnotationSite(studies, read_settings({**settings, **conf})).task("tissue")


def annotate(studies: Path, region: Region, *, wrong: bool = False, empty: bool = False) -> Path:
    """Drop in a GeoJSON file in which everything in one region is drawn as it is, or as the next class."""
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{Path(region.slide).stem}.geojson"
    features = json.loads(file.read_text())["features"] if file.is_file() else []
    features.append(_feature("Region", region.polygon))
    keys = list("SMB")
    for number, key in enumerate(keys):
        cells = [
            shapely.box(x * TILE, y * TILE, (x + 1) * TILE, (y + 1) * TILE)
            for y, row in enumerate(PATTERN)
            for x, character in enumerate(row)
            if character == key
        ]
        area = shapely.unary_union(cells).intersection(region.polygon)
        if not empty and area.area > 0:
            features.append(_feature(CLASSES[keys[(number + wrong) % 3]], area))
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return file


def _feature(name: str, geometry: Any) -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": name}}
    return {"type": "Feature", "geometry": mapping(geometry), "properties": properties}
