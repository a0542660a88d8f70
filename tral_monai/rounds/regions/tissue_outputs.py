# SPDX-License-Identifier: Apache-2.0
"""What the current tissue model says of regions: the mean over tiles that lie spread over each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tral_monai.annotations.tile_grid import TileGrid
from tral_monai.errors import CheckpointError, ConfigError, PoolError, SlideError, StrategyError, UnknownItemError
from tral_monai.progress import Progress
from tral_monai.rounds.predictor import Predictions, TripletPredictor
from tral_monai.rounds.query_handler import validation_counts
from tral_monai.rounds.regions.open_regions import BOX
from tral_monai.rounds.regions.publish import published_split
from tral_monai.rounds.regions.region import RegionAnswer
from tral_monai.rounds.regions.region_ledger import RegionLedger
from tral_monai.rounds.regions.site import TaskSite
from tral_monai.rounds.regions.slide_grid import CELLS
from tral_monai.strategies.base import PoolOutputs, Strategy

logger = logging.getLogger(__name__)

FROM_VALIDATION = frozenset({"false_negatives", "positives"})
"""Fields of ``PoolOutputs`` that come from measuring the model on held-out regions."""
_FROM_MODEL = {"probabilities", "features", "labelled_features", "pool_classes", "class_distribution"}
_ALL_CELLS = 2**CELLS**2 - 1


class RegionOutputs(NamedTuple):
    """What a strategy may know, and the class that the model sees in most of each region (empty where it says none)."""

    outputs: PoolOutputs
    class_predicted: list[str]


def tissue_outputs(
    task: TaskSite,
    strategy: Strategy,
    candidates: pd.DataFrame,
    ledger: RegionLedger,
    *,
    progress: Progress | None = None,
) -> RegionOutputs:
    """Run the current model on regions as far as a strategy needs it.

    Nobody knows the true class of a region before it is annotated: ``pool_classes`` are the predicted ones, so that a
    demand for a class is filled with regions that the model takes for it. Regions that cannot be read are left out.

    Args:
        task: the tissue task of a site.
        strategy: what the outputs are for.
        candidates: the regions, rows of :func:`candidates.candidate_regions`.
        ledger: the task's ledger.
        progress: told how many slides are done.

    Returns:
        The outputs; ids are those of the regions.

    Raises:
        StrategyError: there is no model, or no validation of it, that the strategy needs.
        PoolError: no region could be read.
        CheckpointError: the model has other classes than the task.
    """
    wanted = strategy.needs | strategy.wants
    classes = task.classes
    fields: dict[str, Any] = {"class_names": classes}
    ids = candidates["id"].to_numpy(np.int64)
    predicted = [""] * len(ids)
    if strategy.needs & FROM_VALIDATION:
        fields.update(_validation(task, strategy, ledger))
    if wanted & _FROM_MODEL:
        model = task.current_model
        if model is None:
            raise StrategyError(f"{strategy.name} needs a trained model, and there is none yet; train first")
        run = _RegionPredictor(task, model)
        rows, probabilities, features = run.predict(candidates, progress)
        if not len(rows):
            raise PoolError(f"none of the {len(ids)} regions could be read; the server's log names each slide's reason")
        ids = ids[rows]
        best = probabilities.argmax(axis=1)
        predicted = [classes[c] for c in best]
        fields.update(probabilities=probabilities, features=features, pool_classes=best)
        fields["class_distribution"] = np.bincount(best, minlength=len(classes)).astype(np.float64)
        if "labelled_features" in wanted:
            labelled = run.predict(_answered(task, ledger), None)[2]
            fields["labelled_features"] = labelled if len(labelled) else None
    if "labelled_counts" in wanted:
        fields["labelled_counts"] = _labelled_counts(ledger.answers(), classes)
    kept = wanted | {"class_names"}
    return RegionOutputs(PoolOutputs(ids=ids, **{k: v for k, v in fields.items() if k in kept}), predicted)


def region_tiles(regions: pd.DataFrame, slide_dimensions: Mapping[str, tuple[int, int]]) -> pd.DataFrame:
    """Centres of up to nine tiles in each region, one in each part of it that is tissue.

    Centres are those of the slide's tile grid where these lie in the region, so that a tile that is later trained on
    is the same one.

    Args:
        regions: n regions with ``slide, x_level0, y_level0, width_level0, height_level0, mpp, cells``.
        slide_dimensions: (width, height) of each slide in level-0 pixels.

    Returns:
        Columns ``region`` (row of ``regions``, 0 to n - 1), ``slide, slide_mpp, x_level0, y_level0``.
    """
    found: list[tuple[int, str, float, int, int]] = []
    columns = ["slide", *BOX, "mpp", "cells"]
    for number, (slide, x, y, width, height, mpp, cells) in enumerate(
        regions[columns].itertuples(index=False, name=None)
    ):
        grid = TileGrid(slide_dimensions[slide], mpp)
        centres: dict[tuple[int, int], None] = {}
        for cell in range(CELLS**2):
            if not ((cells or 1 << CELLS**2 // 2) >> cell) & 1:
                continue
            row, column = divmod(cell, CELLS)
            at = np.array([x + (column + 0.5) * width / CELLS, y + (row + 0.5) * height / CELLS])
            on_grid = grid.centres(*np.floor(at / grid.step_level0)[::-1])
            inside = (x <= on_grid[0] < x + width) and (y <= on_grid[1] < y + height)
            chosen = on_grid if inside else np.floor(at)
            centres[int(chosen[0]), int(chosen[1])] = None
        found += [(number, slide, float(mpp), *centre) for centre in centres]
    return pd.DataFrame(found, columns=["region", "slide", "slide_mpp", "x_level0", "y_level0"])


class _RegionPredictor:
    """Mean probabilities and features of regions by the current model."""

    def __init__(self, task: TaskSite, model: Path) -> None:
        self._task, self._model, self._entries = task, model, task.catalog.entries()
        self._predictor = TripletPredictor(device=task.device, feature_dir=task.folder / "features")

    def predict(
        self, regions: pd.DataFrame, progress: Progress | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Rows (k,) that could be read, their probabilities (k, C) and features (k, F)."""
        rows: list[npt.NDArray[np.int64]] = []
        probabilities: list[npt.NDArray[np.float64]] = []
        features: list[npt.NDArray[np.float64]] = []
        groups = list(regions.groupby("slide", sort=False).indices.items())
        for done, (slide, positions) in enumerate(groups):
            if progress is not None:
                progress(done, len(groups))
            found = self._of_slide(str(slide), regions.iloc[positions])
            if found is None:
                continue
            tiles, predictions = found
            region = tiles["region"].to_numpy()
            rows.append(np.asarray(positions, np.int64))
            probabilities.append(_means(predictions.probabilities, region, len(positions)))
            features.append(_means(predictions.features, region, len(positions)))
            logger.info("%s: the model has looked at %d regions", slide, len(positions))
        if progress is not None:
            progress(len(groups), len(groups))
        if not rows:
            return np.empty(0, np.int64), np.empty((0, len(self._task.classes))), np.empty((0, 0))
        if probabilities[0].shape[1] != len(self._task.classes):
            raise CheckpointError(
                f"{self._model.name} knows {probabilities[0].shape[1]} classes, but the task "
                f"{len(self._task.classes)}: {list(self._task.classes)}; give the model's classes, or another model"
            )
        return np.concatenate(rows), np.concatenate(probabilities), np.concatenate(features)

    def _of_slide(self, name: str, regions: pd.DataFrame) -> tuple[pd.DataFrame, Predictions] | None:
        try:
            with self._task.catalog.open(name) as slide:
                tiles = region_tiles(regions, {name: slide.dimensions})
            tiles["slide_path"] = str(self._entries[name].path)
            return tiles, self._predictor.predict(self._model, tiles)
        except (SlideError, UnknownItemError, KeyError, FileNotFoundError) as error:
            logger.warning("%d regions of %s are left out: %s", len(regions), name, error)
            return None


def _means(values: npt.NDArray[Any], region: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float64]:
    """Mean of the rows of each region: (n, D) float64."""
    total = np.zeros((n, values.shape[1]))
    np.add.at(total, region, values)
    return total / np.bincount(region, minlength=n)[:, None]


def _answered(task: TaskSite, ledger: RegionLedger) -> pd.DataFrame:
    """The regions that are trained on, as far as their slides are there."""
    rows: list[tuple[Any, ...]] = []
    mpp: dict[str, float | None] = {}
    for answer in ledger.answers():
        name = answer.region.slide
        if answer.purpose != "train":
            continue
        if name not in mpp:
            try:
                with task.catalog.open(name) as slide:
                    mpp[name] = slide.mpp
            except (SlideError, UnknownItemError) as error:
                logger.warning("the answered regions of %s are left out: %s", name, error)
                mpp[name] = None
        if mpp[name] is not None:
            rows.append((name, *answer.region.bbox_level0, mpp[name], _ALL_CELLS))
    return pd.DataFrame(rows, columns=["slide", *BOX, "mpp", "cells"])


def _validation(task: TaskSite, strategy: Strategy, ledger: RegionLedger) -> dict[str, npt.NDArray[np.float64]]:
    try:
        counts = validation_counts(ledger, ledger.round, task.classes, split=published_split(ledger))
    except ConfigError as error:
        raise StrategyError(
            f"{strategy.name} goes by the model's errors on held-out regions, and round {ledger.round} has none "
            "measured; annotate held-out regions and train, or ask for another strategy"
        ) from error
    return counts


def _labelled_counts(answers: Sequence[RegionAnswer], classes: Sequence[str]) -> npt.NDArray[np.float64]:
    """In how many of the regions that are trained on each class was drawn."""
    drawn = [{name for name, _ in answer.shapes} for answer in answers if answer.purpose == "train"]
    return np.array([sum(name in of_region for of_region in drawn) for name in classes], dtype=np.float64)
