# SPDX-License-Identifier: Apache-2.0
"""A site with slides of plain colours, and an annotator who knows them: what is drawn where is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from tests.inference.colour_slides import CLASSES, TILE, slide_pixels, write_slide
from tests.rounds.nuclei.conftest import TINY
from tral_monai.rounds.regions.region import Purpose, Region, RegionAnswer
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
    "max_epochs": 8,
    "patience": 8,
    "batch_size": 16,
    "learning_rate": 0.03,
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


def annotate(studies: Path, region: Region, *, wrong: bool = False) -> Path:
    """Drop in a GeoJSON file in which everything in one region is drawn as it is, or as the next class."""
    keys, shapes = "SMB", []
    for number, key in enumerate(keys):
        cells = [
            shapely.box(x * TILE, y * TILE, (x + 1) * TILE, (y + 1) * TILE)
            for y, row in enumerate(PATTERN)
            for x, character in enumerate(row)
            if character == key
        ]
        area = shapely.unary_union(cells).intersection(region.polygon)
        if area.area > 0:
            shapes.append((CLASSES[keys[(number + wrong) % 3]], area))
    return drop_in(studies, region, *shapes)


def drop_in(studies: Path, region: Region, *shapes: tuple[str, BaseGeometry]) -> Path:
    """Add a region and what is drawn in it to the GeoJSON file of its slide."""
    folder = studies / "labels" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{Path(region.slide).stem}.geojson"
    features = json.loads(file.read_text())["features"] if file.is_file() else []
    features += [_feature("Region", region.polygon), *(_feature(name, shape) for name, shape in shapes)]
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return file


def _feature(name: str, geometry: Any) -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": name}}
    return {"type": "Feature", "geometry": mapping(geometry), "properties": properties}


def record(task: TaskSite, region: Region, purpose: Purpose, *shapes: tuple[str, BaseGeometry]) -> None:
    """An answer straight into the ledger."""
    answer = RegionAnswer(region, purpose, shapes, cost_labels=len(shapes), cost_minutes=1.0)
    with task.ledger() as ledger:
        source = f"{region.slide}-{region.id}.xml"
        ledger.record_submission(source, sha256="0", slide=region.slide, client="", answers=[answer])


def nuclei_site(studies: Path, **conf: Any) -> TaskSite:
    """The nucleus task: two classes, a tiny detector with random weights that takes two steps an epoch."""
    settings = {
        "tasks": "nuclei",
        "nuclei_classes": "tumour, lymphocyte",
        "nuclei_overlay": None,
        "nuclei_overrides": {
            "backbone": BACKBONE,
            "network_options": {**TINY, "class_agnostic_nms": True},
            "fov_mpp": 0.25,
            "fov_px": 64,
            "max_epochs": 1,
            "updates_per_epoch": 2,
            "batch_size": 2,
        },
        "nuclei_region_um": 16.0,
        "nuclei_budget": 2,
        "nuclei_val_budget": 1,
        "device": "cpu",
    }
    return AnnotationSite(studies, read_settings({**settings, **conf})).task("nuclei")
