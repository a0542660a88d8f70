# SPDX-License-Identifier: Apache-2.0
"""What the current nucleus detectors find in regions, each of which is one field of view."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tral_monai.data.nuclei.detections import Detections
from tral_monai.data.nuclei.fov_table import FOV_COLUMNS
from tral_monai.data.nuclei.reader import FovReader
from tral_monai.errors import PoolError, SlideError, StrategyError
from tral_monai.networks.checkpoint import read_contract
from tral_monai.progress import Progress
from tral_monai.rounds.nuclei.field_outputs import FROM_TARGET, FieldOutputsMaker
from tral_monai.rounds.nuclei.predictor import FieldPredictor
from tral_monai.rounds.regions.nucleus_samples import site_fov_mpp
from tral_monai.rounds.regions.samples import nucleus_samples
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.tissue_outputs import RegionOutputs
from tral_monai.strategies.base import PoolOutputs, Strategy

logger = logging.getLogger(__name__)

_NEEDS_TARGET = FROM_TARGET | {"labelled_features", "known_reference", "unknown_reference"}
_MIN_SCORE = 0.3


def nucleus_outputs(
    task: TaskSite, strategy: Strategy, candidates: pd.DataFrame, *, progress: Progress | None = None
) -> RegionOutputs:
    """Run the detectors that a strategy needs on regions. Regions that cannot be read are left out.

    Args:
        task: the nucleus task of a site.
        strategy: what the outputs are for.
        candidates: the regions, rows of :func:`candidates.candidate_regions`.
        progress: told how many fields of view are done.

    Returns:
        The outputs; ids are those of the regions.

    Raises:
        StrategyError: a detector is missing, or of another kind than the strategy needs.
        PoolError: no region could be read.
    """
    why = missing_detector(task, strategy)
    if why is not None:
        raise StrategyError(why)
    rows = region_fields(task, candidates)
    maker = FieldOutputsMaker(strategy, FieldPredictor(device=task.device, progress=progress), task.classes)

    def answered() -> pd.DataFrame:
        samples = nucleus_samples(task)
        return samples[samples["part"] == "train"].reset_index(drop=True)

    def make() -> PoolOutputs:
        return maker.make(
            rows, target=task.current_model, auxiliary=task.auxiliary_path, labelled=answered, answered=answered
        )

    try:
        outputs = make()
    except SlideError:  # one slide must not keep all others from being asked for
        rows = _readable(rows)
        if rows.empty:
            raise PoolError(
                f"none of the {len(candidates)} regions could be read; the server's log names each slide's reason"
            ) from None
        outputs = make()
    return RegionOutputs(outputs, commonest_class(outputs.detections, len(rows), task.classes))


def missing_detector(task: TaskSite, strategy: Strategy) -> str | None:
    """Why a strategy cannot be used with the detectors that there are, with what to do; None where it can.

    Args:
        task: the nucleus task of a site.
        strategy: the strategy.
    """
    wanted = strategy.needs | strategy.wants
    train = f"train with strategy={strategy.name} first"
    model = task.current_model
    if wanted & _NEEDS_TARGET and model is None:
        return f"{strategy.name} needs a trained detector, and there is none yet; train first"
    if strategy.loss_prediction and model is not None and not read_contract(model).get("loss_prediction"):
        return f"{strategy.name} needs a detector that has learnt to predict losses, and {model.name} has not; {train}"
    if strategy.auxiliary is None:
        return None
    needs = f"{strategy.name} needs an auxiliary detector of role '{strategy.auxiliary}'"
    if not task.auxiliary_path.is_file():
        return f"{needs}, and there is none yet; {train}"
    role = _role(task.auxiliary_path)
    return None if role == strategy.auxiliary else f"{needs}, but the one there has role '{role}'; {train}"


def region_fields(task: TaskSite, candidates: pd.DataFrame) -> pd.DataFrame:
    """Regions as fields of view without nuclei: a table with ``FOV_COLUMNS``; ``id`` is the region's.

    Args:
        task: the nucleus task of a site.
        candidates: the regions; those of slides that are gone are left out.
    """
    entries = task.catalog.entries()
    there = candidates[candidates["slide"].isin(list(entries))]
    slides = [entries[name] for name in there["slide"]]
    boxes, names = np.empty(len(there), dtype=object), np.empty(len(there), dtype=object)
    for row in range(len(there)):
        boxes[row], names[row] = np.empty((0, 4), np.float32), ()
    columns: dict[str, Any] = {
        "id": there["id"].to_numpy(np.int64),
        "field": [entry.id for entry in slides],
        "slide": [entry.name for entry in slides],
        "patient": [entry.patient for entry in slides],
        "hospital": "",
        "image": [str(entry.path) for entry in slides],
        "left_px": there["x_level0"].to_numpy(np.int64),
        "top_px": there["y_level0"].to_numpy(np.int64),
        "width_px": there["width_level0"].to_numpy(np.int64),
        "height_px": there["height_level0"].to_numpy(np.int64),
        "mpp": there["mpp"].to_numpy(np.float64),
        "fov_mpp": site_fov_mpp(task),
        "boxes_px": boxes,
        "classes": names,
    }
    return pd.DataFrame(columns)[list(FOV_COLUMNS)]


def _role(checkpoint: Path) -> str:
    return str(read_contract(checkpoint).get("role", "target"))


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The fields of view whose pixels can be read; of the others each slide is named once."""
    reader, kept, named = FovReader(), [], set()
    for position, (_, row) in enumerate(rows.iterrows()):
        try:
            reader.read(row)
            kept.append(position)
        except SlideError as error:
            if row["slide"] not in named:
                logger.warning("regions of %s are left out: %s", row["slide"], error)
            named.add(row["slide"])
    return rows.iloc[kept].reset_index(drop=True)


def commonest_class(found: Detections | None, n: int, classes: tuple[str, ...]) -> list[str]:
    """The class of most nuclei that are found with some certainty in each image; empty where there are none."""
    if found is None:
        return [""] * n
    counts = np.zeros((n, len(classes)), np.int64)
    sure = np.asarray(found.scores) >= _MIN_SCORE
    np.add.at(counts, (found.image_of_box[sure], found.labels[sure]), 1)
    return [classes[int(row.argmax())] if row.any() else "" for row in counts]
