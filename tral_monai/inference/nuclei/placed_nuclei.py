# SPDX-License-Identifier: Apache-2.0
"""From what a detector says of a batch of tiles to the nuclei that these tiles answer for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import batched_nms

from tral_monai.data.nuclei.detections import Detections
from tral_monai.errors import CheckpointError
from tral_monai.inference.nuclei.found_nuclei import FoundNuclei, evidential_uncertainty
from tral_monai.inference.nuclei.prototype_distances import PrototypeDistances
from tral_monai.inference.nuclei.seams import belongs
from tral_monai.inference.nuclei.tile_plan import IntArray, TilePlan


class NucleusPlacer:
    """Keeps, of each tile, the nuclei in its core, each once and with its best class.

    Args:
        plan: the tiles of the image.
        classes: names of the detector's classes.
        min_score: nuclei with a lower score are left out.
        nms_iou: from which IoU on two boxes of one tile are one nucleus, whatever their classes.
        max_detections: how many nuclei the detector gives per tile at most.
        distances: gives the distances to the prototypes; None leaves them NaN.
    """

    def __init__(
        self,
        plan: TilePlan,
        classes: Sequence[str],
        *,
        min_score: float,
        nms_iou: float,
        max_detections: int,
        distances: PrototypeDistances | None = None,
    ) -> None:
        self.plan, self.classes = plan, tuple(classes)
        self.min_score, self.nms_iou, self.max_detections = min_score, nms_iou, max_detections
        self.distances = distances

    def __call__(
        self, tiles: IntArray, starts: IntArray, images: Sequence[torch.Tensor], detections: Detections
    ) -> tuple[FoundNuclei, int]:
        """The nuclei that some tiles answer for.

        Args:
            tiles: (n,) int64 numbers of the tiles in the plan.
            starts: (n, 2) int64 upper left corners (x, y) of the tiles in pixels of the plan.
            images: the n tiles, uint8 (3, h, w).
            detections: what the detector says of them.

        Returns:
            The nuclei, boxes in pixels of the plan; and how many tiles hold as many as the detector gives.

        Raises:
            CheckpointError: the detections are not finite, of other classes, or of another number of tiles.
        """
        self._check(detections, len(images))
        uncertainty = evidential_uncertainty(detections)
        of_image = detections.image_of_box
        boxes_px = np.asarray(detections.boxes_px, dtype=np.float32).reshape(-1, 4)
        placed = boxes_px + np.tile(starts[of_image], 2).astype(np.float32)
        keep = np.asarray(detections.scores) >= self.min_score
        full = int(np.count_nonzero(detections.sum_per_image(keep) >= self.max_detections))
        keep &= self._best_of_overlapping(boxes_px, detections.scores, of_image, keep)
        keep &= belongs(self.plan, placed, tiles[of_image])
        of_image = of_image[keep]
        distances = np.full((len(of_image), 2), np.nan, dtype=np.float32)
        if self.distances is not None and len(of_image):
            per_image = np.split(boxes_px[keep], np.searchsorted(of_image, np.arange(1, len(images))))
            distances = self.distances(images, per_image)
        nuclei = FoundNuclei(
            boxes_px=placed[keep],
            labels=detections.labels[keep],
            score=np.asarray(detections.scores, dtype=np.float32)[keep],
            uncertainty=uncertainty[keep],
            distances=distances,
            tiles=tiles[of_image],
        )
        return nuclei, full

    def _best_of_overlapping(
        self,
        boxes_px: npt.NDArray[np.float32],
        scores: npt.NDArray[Any],
        of_image: IntArray,
        among: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """Non-maximum suppression within each tile, whatever the classes: (n,) bool."""
        rows = np.flatnonzero(among)
        kept = batched_nms(
            torch.from_numpy(boxes_px[rows]),
            torch.from_numpy(np.asarray(scores, dtype=np.float32)[rows]),
            torch.from_numpy(of_image[rows]),
            self.nms_iou,
        )
        best = np.zeros(len(among), dtype=bool)
        best[rows[kept.numpy()]] = True
        return best

    def _check(self, detections: Detections, images: int) -> None:
        classes = len(self.classes)
        if len(detections) != images:
            raise CheckpointError(f"the detector must answer for {images} tiles, but answered for {len(detections)}")
        if len(detections.labels) and not 0 <= detections.labels.min() <= detections.labels.max() < classes:
            raise CheckpointError(
                f"the detector must give labels 0 to {classes - 1}, one per class in {list(self.classes)}, but gave "
                f"{detections.labels.min()} to {detections.labels.max()}; the checkpoint is of another class list"
            )
        columns = (detections.boxes_px, detections.scores, detections.evidence)
        if not all(np.isfinite(column).all() for column in columns if column is not None):
            raise CheckpointError(
                "the detector's boxes, scores or evidence are not finite; its weights are damaged or its training "
                "diverged"
            )
