# SPDX-License-Identifier: Apache-2.0
"""What people drew in regions, as fields of view with boxes: the table that a nucleus detector is trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
import shapely

from tral_monai.annotations.nuclei.model import NucleusField
from tral_monai.data.nuclei.cut import cut_fields
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS
from tral_monai.data.nuclei.open_set import IGNORED
from tral_monai.errors import ConfigError, SlideError, UnknownItemError
from tral_monai.rounds.regions.covered import covered_answers
from tral_monai.rounds.regions.region import Region, RegionAnswer
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.train_config import train_values

logger = logging.getLogger(__name__)

_LEAST_FOV_PX = 16


def nucleus_samples(task: TaskSite) -> pd.DataFrame:
    """One field of view per answered region of the site's size, with the boxes and answers of its nuclei.

    The rules at the edge are those of :mod:`tral_monai.data.nuclei.cut`: a nucleus that reaches over the edge is
    clipped, and is ``ignored`` where too little of it is left. The part of a nucleus that belongs to a neighbouring
    answered region, but reaches into this one, is ``ignored`` here. A region without nuclei is a row without boxes.
    A region with a side of 1.5 times the site's ``region_um`` or more is cut into several. One that another answered
    region covers is left out, for its nuclei are in that one. Regions of slides that are gone or cannot be opened are
    left out with a warning; their answers stay in the ledger.

    Args:
        task: the nucleus task of a site.

    Returns:
        Rows with :data:`~tral_monai.data.nuclei.fov_table.FOV_COLUMNS` and ``part`` (``train`` or ``val``); ``id`` is
        that of the rectangle as a region: of a region in one piece, the region's own.
    """
    with task.ledger() as ledger:
        answers = sorted(ledger.answers(), key=lambda answer: (answer.region.slide, answer.region.id))
    fov_mpp = site_fov_mpp(task)
    fields: list[NucleusField] = []
    purposes: dict[str, str] = {}
    covered = covered_answers(answers)
    answers = [answer for answer in answers if answer.region.id not in covered]
    for name, group in groupby(answers, key=attrgetter("region.slide")):
        of_slide = list(group)
        try:
            with task.catalog.open(name) as slide:
                mpp, entry = slide.mpp, task.catalog.find(name)
        except (SlideError, UnknownItemError, OSError) as error:
            logger.warning("%d answered regions of %s are left out: %s", len(of_slide), name, error)
            continue
        place = {"image": entry.path, "mpp": mpp, "slide": name, "patient": entry.patient}
        fields += [_field(answer, of_slide, place) for answer in of_slide]
        purposes.update({_name(answer.region): answer.purpose for answer in of_slide})
    fov_px = max(round(task.settings.region_um / fov_mpp), _LEAST_FOV_PX)
    table = cut_fields(fields, fov_mpp=fov_mpp, fov_px=fov_px)
    places = zip(*(table[name] for name in ("slide", "left_px", "top_px", "width_px", "height_px")), strict=True)
    table["id"] = np.array([Region(*place).id for place in places], dtype=np.int64)
    table["part"] = np.array([purposes[name] for name in table["field"]], dtype=object)
    return table[[*FOV_COLUMNS, "part"]]


def site_fov_mpp(task: TaskSite) -> float:
    """Micrometres per pixel at which the detector sees fields of view.

    What the site's overlay says; else what the current model was trained at; else the bundle's value.

    Raises:
        ConfigError: the overlay's value is no number above 0.
    """
    value: Any = task.overlay.get("fov_mpp")
    if value is None and task.current_model is not None:
        from tral_monai.networks.checkpoint import read_contract

        value = read_contract(task.current_model).get("settings", {}).get("fov_mpp")
    if value is None:
        value = train_values(task)["fov_mpp"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"fov_mpp must be micrometres per pixel above 0, such as 0.25, but is {value!r}")
    return float(value)


def _name(region: Region) -> str:
    return f"{region.slide} {list(region.bbox_level0)}"


def _field(answer: RegionAnswer, of_slide: Sequence[RegionAnswer], place: dict[str, Any]) -> NucleusField:
    region = answer.region
    own = list(answer.shapes)
    # A nucleus on the border of two regions was drawn once, in the one that holds its centre.
    outline = region.polygon
    for other in of_slide:
        if other.region != region and other.region.polygon.distance(outline) < max(other.region.bbox_level0[2:]):
            own += [
                (IGNORED, geometry)
                for _, geometry in other.shapes
                if geometry.intersects(outline) and not outline.covers(geometry.centroid)
            ]
    x, y, width, height = region.bbox_level0
    bounds = np.array([shapely.bounds(geometry) for _, geometry in own], dtype=np.float64).reshape(-1, 4)
    return NucleusField(
        name=_name(region),
        width_px=width,
        height_px=height,
        left_px=x,
        top_px=y,
        boxes_px=(bounds - (x, y, x, y)).astype(np.float32),
        classes=tuple(name for name, _ in own),
        ignored=np.array([name == IGNORED for name, _ in own], dtype=np.bool_),
        **place,
    )
