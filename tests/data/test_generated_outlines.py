# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from shapely.ops import unary_union
from skimage.draw import polygon2mask

from tral_monai.annotations.model import Annotation
from tral_monai.annotations.paper_colors import PAPER_COLORS
from tral_monai.data.generated.grid import CELL_PX
from tral_monai.data.generated.layout import CLASSES, Plan, plan_slide
from tral_monai.data.generated.outlines import outline_regions, whole_tiles

TILES = {"Blood": 15.0, "Damaged": 40.0, "Muscle": 50.0, "Stroma": 70.0, "Urothelium": 60.0}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_slide(np.random.default_rng(3), width_px=4000, height_px=4000, mpp=0.25)


@pytest.fixture(scope="module")
def annotations(plan: Plan) -> list[Annotation]:
    drawn = outline_regions(np.random.default_rng(0), plan, TILES)
    assert drawn is not None
    return drawn


def test_polygons_are_valid_coloured_and_named(annotations: list[Annotation]):
    assert {a.class_name for a in annotations} == set(CLASSES)
    assert {a.name for a in annotations if a.class_name == "Damaged"} == {"cautery", "blur", "fold"}
    assert all(a.geometry.geom_type == "Polygon" and a.geometry.is_valid for a in annotations)
    assert all(a.color == PAPER_COLORS[a.class_name] for a in annotations)
    assert len({a.id for a in annotations}) == len(annotations)


def test_outlines_stay_inside_of_their_class(plan: Plan, annotations: list[Annotation]):
    for annotation in annotations:
        ring = np.asarray(annotation.geometry.exterior.coords)[:, ::-1] / CELL_PX - 0.5
        cells = polygon2mask(plan.tissue.shape, ring)
        for hole in annotation.geometry.interiors:
            cells &= ~polygon2mask(plan.tissue.shape, np.asarray(hole.coords)[:, ::-1] / CELL_PX - 0.5)
        assert plan.class_mask(annotation.class_name)[cells].mean() > 0.97


def test_outlines_do_not_overlap_much_and_leave_most_of_the_tissue(plan: Plan, annotations: list[Annotation]):
    shapes = [a.geometry for a in annotations]
    union = unary_union(shapes).area
    assert sum(s.area for s in shapes) < 1.02 * union
    assert union < 0.5 * (plan.tissue != 0).sum() * CELL_PX**2


def test_area_follows_what_was_asked(annotations: list[Annotation]):
    tiles = sum(a.geometry.area for a in annotations if a.class_name == "Urothelium") / 128**2
    assert 0.8 * TILES["Urothelium"] < tiles < 1.6 * TILES["Urothelium"]


def test_whole_tiles_by_hand():
    mask = np.zeros((40, 40), bool)
    mask[8:24, 8:16] = True  # two tiles of 8 x 8 cells, on the grid
    mask[0:8, 30:32] = True  # a quarter of a tile
    assert whole_tiles(mask, 8.0) == 2
    assert whole_tiles(mask, 8.0, coverage=0.2) == 3


def test_none_where_a_class_is_short(plan: Plan):
    assert outline_regions(np.random.default_rng(0), plan, {"Blood": 15.0}, least_tiles=500) is None
